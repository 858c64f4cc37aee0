"""The fields of Kubernetes' API that the manifests of this project use, with their types, by the kind of object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def exactly(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """The schema of an object with these fields and no others."""
    return {
        "type": "object",
        "properties": required | optional,
        "required": [*required],
        "additionalProperties": False,
    }


def listed(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema, "minItems": 1}


def objects(path: Path) -> dict[str, Any]:
    """The objects of a manifest by kind."""
    parts = [*yaml.safe_load_all(path.read_text())]
    return {part["kind"]: part for part in parts}


TEXT, WHOLE, TRUTH = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
NAME = {"type": "string", "pattern": r"^[a-z]([-a-z0-9]*[a-z0-9])?$"}
AMOUNT = {"type": "string", "pattern": r"^\d+(m|Mi|Gi)?$"}
AMOUNTS = {"type": "object", "additionalProperties": AMOUNT}
LABELS = {"type": "object", "additionalProperties": TEXT}
PROBE = exactly(
    {"httpGet": exactly({"path": TEXT, "port": NAME}), "periodSeconds": WHOLE},
    failureThreshold=WHOLE,
    timeoutSeconds=WHOLE,
)
CONTAINER = exactly(
    {
        "name": NAME,
        "image": TEXT,
        "args": listed(TEXT),
        "resources": exactly({"requests": AMOUNTS, "limits": AMOUNTS}),
        "volumeMounts": listed(exactly({"name": NAME, "mountPath": TEXT}, readOnly=TRUTH)),
    },
    command=listed(TEXT),
    env=listed(exactly({"name": TEXT, "value": TEXT})),
    ports=listed(exactly({"containerPort": WHOLE}, name=NAME)),
    startupProbe=PROBE,
    readinessProbe=PROBE,
    livenessProbe=PROBE,
    securityContext=exactly(
        {
            "allowPrivilegeEscalation": TRUTH,
            "readOnlyRootFilesystem": TRUTH,
            "capabilities": exactly({"drop": listed(TEXT)}),
        }
    ),
)
POD = exactly(
    {
        "containers": listed(CONTAINER),
        "volumes": listed(
            exactly(
                {"name": NAME},
                persistentVolumeClaim=exactly({"claimName": NAME}, readOnly=TRUTH),
                secret=exactly({"secretName": NAME, "defaultMode": WHOLE}),
                emptyDir=exactly({"sizeLimit": AMOUNT}, medium={"const": "Memory"}),
            )
        ),
    },
    automountServiceAccountToken=TRUTH,
    restartPolicy={"enum": ["Never", "OnFailure"]},
    securityContext=exactly(
        {
            "runAsNonRoot": TRUTH,
            "runAsUser": WHOLE,
            "runAsGroup": WHOLE,
            "seccompProfile": exactly({"type": {"const": "RuntimeDefault"}}),
        }
    ),
    subdomain=NAME,
    terminationGracePeriodSeconds=WHOLE,
)
TEMPLATE = exactly({"metadata": exactly({"labels": LABELS}), "spec": POD})


def _kind(version: str, spec: dict[str, Any]) -> dict[str, Any]:
    return exactly(
        {"apiVersion": {"const": version}, "kind": TEXT, "metadata": exactly({"name": NAME}), "spec": spec},
    )


KINDS = {
    "Deployment": _kind(
        "apps/v1",
        exactly({"replicas": WHOLE, "selector": exactly({"matchLabels": LABELS}), "template": TEMPLATE}),
    ),
    "Job": _kind(
        "batch/v1",
        exactly(
            {"backoffLimit": WHOLE, "template": TEMPLATE},
            completionMode={"enum": ["Indexed", "NonIndexed"]},
            completions=WHOLE,
            parallelism=WHOLE,
        ),
    ),
    "Service": _kind(
        "v1",
        exactly(
            {"selector": LABELS, "ports": listed(exactly({"name": NAME, "port": WHOLE}, targetPort=NAME))},
            clusterIP={"const": "None"},
            publishNotReadyAddresses=TRUTH,
        ),
    ),
}
