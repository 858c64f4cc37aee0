"""Beginnings and ends that many texts share."""

from __future__ import annotations

from tunesmith.auditing import boilerplate


def ids(texts: list[str]) -> list[str]:
    return [str(n) for n in range(len(texts))]


def varied(rows: int) -> list[str]:
    return [f"word{n} is different and word{n + 1} goes on with {n}" for n in range(rows)]


def test_a_shared_beginning_is_found_in_full() -> None:
    texts = [f"Dear Sir or Madam, I write about {text}" for text in varied(30)] + varied(70)
    (found,) = boilerplate.find(ids(texts), texts)
    assert (found.place, found.text, found.words) == ("beginning", "Dear Sir or Madam, I write about", 7)
    assert (found.count.rows, found.share) == (30, 0.3)


def test_a_shared_end_is_found_and_read_forwards() -> None:
    texts = [f"{text} Sent from my new phone" for text in varied(20)] + varied(80)
    (found,) = boilerplate.find(ids(texts), texts)
    assert (found.place, found.text) == ("end", "Sent from my new phone")


def test_one_text_many_times_is_a_duplicate_and_no_boilerplate() -> None:
    texts = ["the very same text again and again"] * 50 + varied(50)
    assert boilerplate.find(ids(texts), texts) == ()


def test_fewer_than_ten_rows_are_none() -> None:
    texts = [f"Dear Sir or Madam, I write about {text}" for text in varied(9)]
    assert boilerplate.find(ids(texts), texts) == ()


def test_the_label_of_a_beginning_is_named() -> None:
    texts = [f"(Reuters) A report says that {text}" for text in varied(20)] + varied(80)
    labels: list[str | None] = ["news"] * 19 + ["other"] * 81
    (found,) = boilerplate.find(ids(texts), texts, labels)
    assert (found.label, found.label_share) == ("news", 0.95)


def test_personal_data_in_it_is_masked() -> None:
    texts = [f"Write to jane@mail.example or call now: {text}" for text in varied(20)]
    (found,) = boilerplate.find(ids(texts), texts)
    assert found.text == "Write to [email] or call now:"


def test_very_long_texts_are_read_to_a_limit() -> None:
    texts = [" ".join(["same"] * 1000 + [str(n)]) for n in range(20)]
    found = boilerplate.find(ids(texts), texts)
    assert [part.words for part in found] == [boilerplate.MOST_WORDS]
    assert len(found[0].text) <= boilerplate.MOST_CHARACTERS + 1
