"""Languages of texts: sure where a text is long, silent where it is short."""

from __future__ import annotations

from tunesmith.auditing import languages

SENTENCES = {
    "en": "The committee will meet again next week to discuss the results of the survey.",
    "de": "Der Ausschuss trifft sich nächste Woche wieder, um die Ergebnisse der Umfrage zu besprechen.",
    "fr": "Le comité se réunira de nouveau la semaine prochaine pour discuter des résultats de l'enquête.",
    "ru": "Комитет снова соберётся на следующей неделе, чтобы обсудить результаты опроса жителей.",
    "ja": "委員会は来週また集まり、住民を対象に行われた調査の結果について詳しく話し合う予定です。",
}


def test_long_texts_are_identified() -> None:
    assert {code: languages.identify(text) for code, text in SENTENCES.items()} == {code: code for code in SENTENCES}


def test_of_short_texts_no_language_is_told() -> None:
    texts = [*SENTENCES.values(), "ok", "haha lol", "42", ""]
    found = languages.profile([str(n) for n in range(len(texts))], texts, seed=1)
    assert (found.texts, found.short, found.known, found.drawn) == (9, 4, 5, False)


def test_the_most_frequent_language_comes_first_and_the_others_are_named() -> None:
    texts = [SENTENCES["en"]] * 3 + [SENTENCES["de"]]
    found = languages.profile(list("abcd"), texts, seed=1)
    assert found.rows == {"English": 3, "German": 1}
    assert found.others.where == ("d",)


def test_of_many_texts_some_are_drawn_the_same_for_the_same_seed() -> None:
    texts = [f"{n}" for n in range(languages.MOST_TEXTS + 10)]
    ids = texts
    first, again = (languages.profile(ids, texts, seed=3) for _ in range(2))
    assert first == again
    assert (first.texts, first.drawn, first.short) == (languages.MOST_TEXTS, True, languages.MOST_TEXTS)


def test_scripts_without_spaces_need_half_as_many_letters() -> None:
    assert languages.is_long_enough("委" * 20)
    assert not languages.is_long_enough("x" * 39)
