import hashlib
import os
import random
import re
import runpy
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest

from biggan.classes import (
    class_choices,
    default_class_names,
    imagenet_classes,
    is_imagenet,
    resolve_class,
    search_classes,
    wordnet_ids,
)
from biggan.errors import InputError

SCRIPT = Path(__file__).parents[1] / "scripts" / "make_imagenet_classes.py"

IMAGENET = imagenet_classes()
NAMES = [
    "tench, Tinca tinca",
    "tabby, tabby cat",
    "tiger cat",
    "golden retriever",
    "Labrador retriever",
    "crane",  # the bird
    "crane",  # the machine
    "maillot",
    "maillot, tank suit",
    "wire-haired fox terrier",
    "jack-o'-lantern",
    "teddy, teddy bear",
    "catamaran",
]


@pytest.mark.parametrize("index", [0, 3, len(NAMES) - 1, np.int64(3)])
def test_an_index_is_itself(index):
    assert resolve_class(index, NAMES) == index
    assert type(resolve_class(index, NAMES)) is int


HARPS = ["harmonica, harp", "harp"]
CATS = ["concatenation", "tiger cat", "cat flap", "tabby, cat", "dog"]
BALLS = ["timber wolf", "golf ball", "golfcart, golf cart", "ball"]


@pytest.mark.parametrize(
    ("names", "index", "queries"),
    [
        (NAMES, 0, ["TINCA Tinca"]),
        (NAMES, 1, ["tabby", "tabby cat", "tabby, tabby cat", "tabby,tabby cat"]),
        (NAMES, 3, ["  golden   retriever ", "golden_retriever", "golden-retriever", "golden"]),
        (NAMES, 3, ["3", " 3 ", "3) golden retriever", "3)", "3) Golden_Retriever"]),
        (NAMES, 8, ["maillot, tank suit"]),
        (NAMES, 9, ["wire haired fox terrier", "Wire-Haired_Fox terrier", "fox terrier"]),
        (NAMES, 10, ["jack o' lantern"]),
        (NAMES, 11, ["teddy", "bear"]),
        # An exact name, or a class that is named by a number, wins.
        (["tiger cat", "cat", "cat flap"], 1, ["cat"]),
        (["cat, puss, mouser", "cat, puss"], 1, ["cat, puss"]),
        (["2", "3", "1"], 2, ["1"]),
        (["2", "3", "1"], 1, [1]),
        (HARPS, 1, ["1) harp"]),
        (default_class_names(30), 2, [2, "2", "class 2"]),
        (IMAGENET, 207, ["golden retriever", "golden_retriever", "N02099601"]),
        (IMAGENET, 594, ["594) harp"]),
        (IMAGENET, 639, ["maillot, tank suit"]),
        (IMAGENET, 933, ["cheeseburger"]),
    ],
)
def test_names_synonyms_words_numbers_and_entries_are_classes(names, index, queries):
    for query in queries:
        assert resolve_class(query, names) == index, query


@pytest.mark.parametrize(
    ("names", "query", "message"),
    [
        (NAMES, -1, "is out of range: this model's classes are 0 to 12$"),
        (NAMES, len(NAMES), "is out of range: this model's classes are 0 to 12$"),
        (NAMES, "-1", "is out of range: this model's classes are 0 to 12$"),
        (NAMES, "13", "is out of range: this model's classes are 0 to 12$"),
        (NAMES, "99) cheeseburger", "is out of range: this model's classes are 0 to 12$"),
        (["2", "3", "1"], "-1", "out of range"),
        (NAMES, "3) great white shark", "number 3 of this model is 'golden retriever'"),
        (NAMES, "  ", "empty"),
        ([], "cat", "unconditional"),
        ([], 0, "unconditional"),
        (
            NAMES,
            "golden retreiver",
            "^no class .* 'golden retreiver'; nearest: 3. golden retriever",
        ),
        (NAMES, "golden retreiver", "`biggan classes --model MODEL` or gan.class_names lists them"),
        (NAMES, "ama", "nearest: 12. catamaran;"),
        (NAMES, "catamran", "nearest: 12. catamaran;"),
        (NAMES, "zzzz\nzz", r"^no class is named 'zzzz\\nzz'; `biggan classes --model "),
        (NAMES, "9" * 5000, "no class is named"),
        (IMAGENET, "n02099602", "no class is named"),
        (IMAGENET, "n0209960", "no class is named"),
        (IMAGENET, "golden retreiver", "no class is named"),
        # What several classes are called is ambiguous.
        (NAMES, "Crane", "'Crane' is ambiguous: 5. crane; 6. crane; give .* the whole entry"),
        (NAMES, "maillot", "ambiguous: 7. maillot; 8. maillot, tank suit; give"),
        (HARPS, "harp", "ambiguous: 0. harmonica, harp; 1. harp; give"),
        (["tub, vat", "bathtub, tub"], "tub", "ambiguous: 0. tub, vat; 1. bathtub, tub; give"),
        (["tabby cat", "tiger cat", "catamaran"], "cat", "ambiguous: 0. tabby cat; 1. tiger cat;"),
        ([f"dog {index}" for index in range(13)], "dog", "; 9. dog 9; and 3 more; give"),
        (IMAGENET, "crane", "ambiguous: 134. crane; 517. crane;"),
        (IMAGENET, "maillot", "ambiguous: 638. maillot; 639. maillot, tank suit;"),
        (IMAGENET, "Cardigan", "us: 264. Cardigan, Cardigan Welsh corgi; 474. cardigan;"),
        (IMAGENET, "cat", "ambiguous: 281. tabby, tabby cat; 282. tiger cat; 283. Persian cat"),
    ],
)
def test_what_is_no_class_is_answered_in_one_line(names, query, message):
    with pytest.raises(InputError, match=message) as caught:
        resolve_class(query, names)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "query", "found"),
    [
        (CATS, "CAT", [3, 2, 1, 0]),  # the best first
        (CATS, "cat_flap", [2]),
        (CATS, "", [0, 1, 2, 3, 4]),
        (CATS, "3", [3]),
        (CATS, "3)", [3]),
        (CATS, "3) tabby, cat", [3]),
        (CATS, "5", []),
        (["11", "one", "0 or 1", "1"], "1", [3, 1, 2, 0]),
        (CATS, "whale", []),
        # A query that no name holds is taken for a misspelling.
        (BALLS, "gofl cart", [2]),
        (BALLS, "golfkart", [2]),
        (BALLS, "glof", [1, 2]),
        (BALLS, "golf", [1, 2]),  # "wolf" is as similar, but this is held
        (BALLS, "wulf", [0]),
        (BALLS, "football", []),  # "ball" is held by it, not the other way round
        # The most similar first, and nothing far behind it.
        (["lavender", "calendars", "calendar"], "calender", [2, 1]),
        (["lavender"], "calender", [0]),
        (IMAGENET, "golden retreiver", [207]),
        (IMAGENET, "chesburger", [933]),
        (IMAGENET, "cheese burger", [933]),
        (IMAGENET, "cheeseburgers", [933]),
        (IMAGENET, "sibirian husky", [250]),
        (IMAGENET, "dalmation", [251]),
        (IMAGENET, "goldfsh", [1]),
        (IMAGENET, "tiger cta", [282]),
        (IMAGENET, "n02099601", [207]),
        (IMAGENET, "N0209960", [207]),
        (IMAGENET, "n02099", [205, 206, 207, 208, 209]),
        (IMAGENET, "n02099602", []),
    ],
)
def test_search(names, query, found):
    assert search_classes(query, names) == found


def test_choices_are_the_notebooks_and_each_means_its_class():
    choices = class_choices(NAMES)
    assert choices[0] == "0) tench, Tinca tinca"
    assert [resolve_class(choice, NAMES) for choice in choices] == list(range(len(NAMES)))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_both_spellings_of_an_accent_are_the_same_name(form):
    names = [unicodedata.normalize("NFD", name) for name in ("tea", "caf\u00e9 noir", "\uac15")]
    assert resolve_class(unicodedata.normalize(form, "CAF\u00c9 noir"), names) == 1
    assert resolve_class(unicodedata.normalize(form, "\uac15"), names) == 2
    assert search_classes(unicodedata.normalize(form, "caf\u00e9"), names) == [1]


def test_search_puts_whole_words_before_parts():
    """ "Catamount" and "catesbeiana" are no cats."""
    found = [IMAGENET[index] for index in search_classes("cat", IMAGENET)]
    assert found.index("tabby, tabby cat") < found.index("lynx, catamount")
    assert found.index("Egyptian cat") < found.index("bullfrog, Rana catesbeiana")


def test_the_module_itself_needs_only_the_standard_library():
    code = (
        "import sys, types; package = types.ModuleType('biggan');"
        "package.__path__ = [sys.argv[1]]; sys.modules['biggan'] = package;"
        "import biggan.classes; assert len(biggan.classes.imagenet_classes()) == 1000;"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    import biggan.classes

    folder = str(biggan.classes.__file__).removesuffix("classes.py")
    subprocess.run([sys.executable, "-c", code, folder], check=True)


def test_imagenets_table_is_the_one_that_the_script_made():
    table = "".join(map("{}\t{}\n".format, wordnet_ids(), IMAGENET))
    digest = "c98cf8e050b2f67f824762ebdb5bcf683adc7955382b9ff8b1c0f49548bb449b"
    assert hashlib.sha256(table.encode()).hexdigest() == digest
    assert len(IMAGENET) == len(wordnet_ids()) == 1000
    assert list(wordnet_ids()) == sorted(set(wordnet_ids()))


def test_imagenets_names_are_clean_text():
    for name in IMAGENET:
        synonyms = name.split(", ")
        assert all(re.fullmatch(r"[A-Za-z'.-]+( [A-Za-z'.-]+)*", text) for text in synonyms), name
        assert len(set(synonyms)) == len(synonyms), name


def test_every_imagenet_class_has_its_name_or_is_listed_with_those_that_share_it():
    shared = {}
    for index, name in enumerate(IMAGENET):
        try:
            assert resolve_class(name, IMAGENET) == index
        except InputError as error:
            shared[index] = str(error)
    assert list(shared) == [86, 134, 474, 517, 594, 638, 657]  # crane, cardigan, crane, maillot
    assert all(f" {index}) {IMAGENET[index]};" in message for index, message in shared.items())


@pytest.mark.parametrize("queries", [range(1000), class_choices(IMAGENET), wordnet_ids()])
def test_every_imagenet_class_has_its_index_menu_entry_and_wordnet_id(queries):
    assert [resolve_class(query, IMAGENET) for query in queries] == list(range(1000))


def test_wordnet_ids_are_imagenets_alone():
    assert is_imagenet(list(IMAGENET))
    others = IMAGENET[::-1], IMAGENET[:-1]
    assert not any(map(is_imagenet, others))
    for names in others:
        with pytest.raises(InputError, match="no class is named"):
            resolve_class("n02099601", names)
        assert search_classes("n02099601", names) == []


def test_search_finds_imagenets_names_with_a_letter_lost():
    rng = random.Random(0)
    for index in rng.sample(range(1000), 30):
        name = max(IMAGENET[index].split(", "), key=len)
        lost = rng.randrange(1, len(name) - 1)
        query = name[:lost] + name[lost + 1 :]
        if len(query) > 4:  # shorter ones are parts of other names ("acon" of "beacon")
            assert index in search_classes(query, IMAGENET), query


def test_classes_without_names_are_numbered_unless_they_are_a_thousand():
    assert default_class_names(0) == ()
    assert default_class_names(3) == ("class 0", "class 1", "class 2")
    assert default_class_names(1000) == IMAGENET


def fake_wheel(folder, synsets, lemmas):
    path = folder / "timm.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("timm/data/_info/imagenet_synsets.txt", synsets)
        archive.writestr("timm/data/_info/imagenet_synset_to_lemma.txt", lemmas)
    return path


def make_table(wheel):
    return runpy.run_path(str(SCRIPT))["make_table"](wheel)


def test_the_script_orders_and_cleans(tmp_path):
    lemmas = "n1\then\nn2\tunused\nn3\ttench ,Tinca  tinca \n"
    assert make_table(fake_wheel(tmp_path, "n3\nn1\n", lemmas)) == (
        "n3\ttench, Tinca tinca\nn1\then\n"
    )


@pytest.mark.parametrize(
    ("synsets", "lemmas", "message"),
    [
        ("n1\nn1\n", "n1\then\n", "an id twice"),
        ("n1\nn2\n", "n1\then\n", "no name"),
        ("n1\n", "n1\then, , biddy\n", "an empty synonym"),
    ],
)
def test_the_script_refuses_a_wheel_that_it_does_not_understand(tmp_path, synsets, lemmas, message):
    with pytest.raises(ValueError, match=message):
        make_table(fake_wheel(tmp_path, synsets, lemmas))


@pytest.mark.skipif("TIMM_WHEEL" not in os.environ, reason="TIMM_WHEEL is not the path of a wheel")
def test_the_script_makes_the_table_again():
    committed = SCRIPT.parents[1] / "src" / "biggan" / "imagenet_classes.tsv"
    assert make_table(Path(os.environ["TIMM_WHEEL"])).encode() == committed.read_bytes()
