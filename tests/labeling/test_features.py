"""Features against scikit-learn and brute force, and that nothing is learned from the hold-out part."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.sparse import random as random_matrix
from sklearn.feature_extraction.text import CountVectorizer

from domainseg.labeling import lasso
from domainseg.labeling.features import CANDIDATES, REFERENCE, Features, Settings
from domainseg.labeling.lexicon import read_lexicons
from domainseg.labeling.ngrams import NGrams
from domainseg.labeling.reading import Read, read
from domainseg.labeling.vectors import SMOOTHING, Topics, Vectors


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = np.random.default_rng(0)
    vocabulary = ["no", "effusion", "heart", "big", "small", "left", "12", "a", "nodes."]
    return [" ".join(rng.choice(vocabulary, size=rng.integers(0, 14))) for _ in range(300)]


@pytest.fixture(scope="module")
def understood(texts: list[str]) -> Read:
    return read(texts, read_lexicons(["chest"]))


def test_plain_ngrams_are_those_of_count_vectorizer(
    texts: list[str], understood: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domainseg.labeling.ngrams.CHUNK", 70)
    grams = NGrams(understood.streams["plain"], 7).fit(np.arange(200))
    ours = grams.transform(np.arange(150, 300)).toarray()
    names = [" ".join(words) for words in grams.names()]
    vectorizer = CountVectorizer(binary=True, ngram_range=(1, 3), min_df=7).fit(texts[:200])
    theirs = vectorizer.transform(texts[150:]).toarray()
    assert sorted(names) == list(vectorizer.get_feature_names_out())
    assert (ours[:, np.argsort(names)] == theirs).all()
    assert (grams.counts() == grams.transform(np.arange(200)).toarray().sum(axis=0)).all()


def test_paper_ngrams_cross_no_sentence_and_no_comes_first(texts: list[str], understood: Read) -> None:
    rows = np.arange(300)
    grams = NGrams(understood.streams["paper"], 5, no_first=True).fit(rows)
    expected: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        found = set()
        for sentence in text.replace("12", "").replace("nodes.", "node .").replace("a ", "a ").split("."):
            words = sentence.split()
            for n in (1, 2, 3):
                found |= {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
        expected.update(gram for gram in found if "no" not in gram[1:] and gram != ("no",))
    assert dict(zip(grams.names(), grams.counts().tolist(), strict=True)) == {
        gram: count for gram, count in expected.items() if count >= 5
    }
    assert grams.transform(rows).shape == (300, len(grams.names()))


def test_context_words_carry_what_is_asserted() -> None:
    text = "HISTORY: Fall. FINDINGS: No effusion. Possible nodule. Mild edema."
    stream = read([text], read_lexicons(["chest"])).streams["context"]
    assert stream.words == ["-effusion", "?nodule", "+mild", "+edema"]


def test_word_vectors_factorise_pointwise_mutual_information() -> None:
    texts = ["red blue red green. blue green"] * 3 + ["green red blue. red red"] * 2
    stream = read(texts, read_lexicons(["chest"])).streams["paper"]
    vectors = Vectors.fit(stream, np.arange(5), min_count=1, dims=2, seed=0)
    counts = np.zeros((3, 3))
    for text in texts:
        for sentence in text.split("."):
            places = [stream.numbers[word] for word in sentence.split()]
            for i, one in enumerate(places):
                for j, two in enumerate(places):
                    counts[one, two] += i != j and abs(i - j) <= 5
    share = counts.sum(axis=0) ** SMOOTHING / (counts.sum(axis=0) ** SMOOTHING).sum()
    with np.errstate(divide="ignore"):
        ppmi = np.maximum(np.log(counts / counts.sum(axis=1)[:, None] / share), 0)
    assert ppmi.max() > 0
    singular = np.linalg.svd(ppmi)
    wanted = singular.Vh[:2].T * singular.S[:2] @ singular.Vh[:2]  # the sign of each direction is free
    assert vectors.vectors @ vectors.vectors.T == pytest.approx(wanted, abs=1e-9)
    mean = vectors.transform(np.array([3]))[0]
    order = [stream.numbers[word] for word in ("green", "red", "blue", "red", "red")]
    assert mean == pytest.approx(vectors.vectors[order].mean(axis=0))


def test_topics_tell_two_kinds_of_report_apart() -> None:
    rng = np.random.default_rng(1)
    kinds = [["lung", "heart", "rib", "effusion"], ["brain", "skull", "ventricle", "sulci"]]
    texts = [" ".join(rng.choice(kinds[n % 2], 12)) for n in range(80)]
    stream = read(texts, read_lexicons(["chest"])).streams["paper"]
    shares = Topics.fit(stream, np.arange(60), min_count=1, topics=2, seed=0).transform(np.arange(60, 80))
    assert shares.sum(axis=1) == pytest.approx(1)
    assert (shares[::2].argmax(axis=1) != shares[1::2].argmax(axis=1)).all()


def test_nothing_is_learned_from_the_hold_out_part(texts: list[str]) -> None:
    def names(end: str) -> list[str]:
        understood = read([*texts, *[f"secret {end} effusion"] * 50], read_lexicons(["chest"]))
        features = Features(understood, np.arange(len(texts)), Settings(5, 4, 2, 0))
        return [name for views in (*CANDIDATES, REFERENCE) for name in features.names(views)]

    assert names("mass") == names("nodule")
    assert not any("secret" in name for name in names("mass"))


def test_lasso_meets_the_conditions_of_the_optimum() -> None:
    rng = np.random.default_rng(2)
    matrix = random_matrix(300, 40, 0.2, format="csr", random_state=3)
    label = (matrix.toarray()[:, 0] - matrix.toarray()[:, 1] + rng.normal(0, 0.3, 300) > 0).astype(float)
    for c in (0.5, 2.0):
        model = lasso.fit(matrix, label, c)
        slope = c * (matrix.T @ (label - lasso.probability(model.log_odds(matrix))))
        used = model.weights != 0
        assert 0 < used.sum() < 40
        assert slope[used] == pytest.approx(np.sign(model.weights[used]), abs=0.03)
        assert np.abs(slope[~used]).max() < 1.03


def test_search_predicts_each_fold_without_it_and_stops_after_the_best() -> None:
    matrix = random_matrix(200, 30, 0.3, format="csr", random_state=4)
    rng = np.random.default_rng(5)
    label = (rng.random(200) < 0.5).astype(float)  # nothing to learn: only the strongest penalties are good
    found = lasso.search(matrix, label, np.arange(200) % 5)
    assert found.c <= 0.25
    assert found.loss == pytest.approx(lasso.log_loss(label, found.log_odds))
    assert found.loss > 0.68
    rest = np.arange(200) % 5 != 0
    model = lasso.fit(matrix[rest], label[rest], found.c)
    assert found.log_odds[~rest] == pytest.approx(model.log_odds(matrix[~rest]))
