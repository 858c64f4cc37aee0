"""A vector for each text of a batch, from the hidden states of its tokens."""

from __future__ import annotations

import torch

from tunesmith.data.batches import Batch


def pool(hidden_BTD: torch.Tensor, batch: Batch, pooling: str) -> torch.Tensor:
    """Return B x D: the `mean` over each text's tokens, or its first token's (`cls`).

    hidden_BTD: of a padded batch; 1 x T x D of texts in one row.
    """
    if batch.lengths is not None:
        texts = torch.split(hidden_BTD[0], list(batch.lengths))
        return torch.stack([text_TD[0] if pooling == "cls" else text_TD.mean(dim=0) for text_TD in texts])
    mask_BT = batch.inputs["attention_mask"].to(hidden_BTD.dtype)
    if pooling == "cls":
        first_B = batch.inputs["attention_mask"].argmax(dim=1)  # behind the padding, where that is on the left
        return torch.as_tensor(hidden_BTD[torch.arange(len(first_B), device=first_B.device), first_B])
    return torch.as_tensor((hidden_BTD * mask_BT[:, :, None]).sum(1) / mask_BT.sum(1, keepdim=True))
