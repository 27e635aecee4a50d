"""Search in the built book: British and American spellings find each other, and chapters stand above the reference.

Sphinx reduces words to their stems, both when it writes the index and, in JavaScript, when somebody searches. Here
both first bring a word into American spelling. A rule need not be right about all of English, as "contor" shows: both
sides change a word alike, and only the place of the snippet on the page is lost.
"""

import json
import re
from pathlib import Path

from sphinx.search.en import SearchEnglish

SCORER = Path(__file__).with_name("search_scorer.js")
# Patterns that Python and JavaScript read alike, and what takes the place of what they find; $1 is the first group.
SPELLINGS = [
    # normalise; but exercise, pathwise and others are written so everywhere
    (
        r"^(?!(?:exerc|prec|conc|expert|prom|surpr|comprom|superv|prem|\w*w)is)(\w{4,})is(e|es|ed|er|ers|ing|ation|"
        r"ations|able|ability)$",
        "$1iz$2",
    ),
    (r"parametri[sz]", "parameteriz"),  # reparametrization
    (r"lys(e|es|ed|er|ers|ing)$", "lyz$1"),  # analyse
    (r"^(\w{3,})our(s|ed|ing|ful|hood|hoods|able|al|ally)?$", "$1or$2"),  # colour
    (r"^(cent|fib|met|lit|calib|theat)(?:re|res|red|ring)$", "$1er"),  # centre
    (r"(label|model|cancel|travel|signal|level|total|equal|channel|tunnel|panel)l(ed|ing|er|ers)$", "$1$2"),
    (r"^grey", "gray"),
    (r"logue(s?)$", "log$1"),  # catalogue
    (r"^(def|lic|off|pret)ence", "$1ense"),
    (r"^practi[sz]", "practic"),
    (r"^programme(s?)$", "program$1"),
    (r"^artefact", "artifact"),
    (r"^sceptic", "skeptic"),
    (r"^maths$", "math"),
]


def american(word: str) -> str:
    """The word, in small letters, in American spelling.

    Example:
        >>> american("Reparametrisations"), american("colour"), american("labelled"), american("noise")
        ('reparameterizations', 'color', 'labeled', 'noise')
    """
    word = word.lower()
    for pattern, by in SPELLINGS:
        word = re.sub(pattern, re.sub(r"\$(\d)", r"\\\1", by), word, flags=re.A)
    return word


class BookSearch(SearchEnglish):
    """Sphinx's search in English, after `american`."""

    js_stemmer_code = (
        SearchEnglish.js_stemmer_code
        + f"""
const SPELLINGS = {json.dumps(SPELLINGS)}.map(([pattern, by]) => [new RegExp(pattern, "g"), by]);
const PorterStemmer = Stemmer;
Stemmer = function () {{
  const porter = new PorterStemmer();
  this.stemWord = word =>
    porter.stemWord(SPELLINGS.reduce((changed, [pattern, by]) => changed.replace(pattern, by), word.toLowerCase()));
}};
"""
    )

    def stem(self, word: str) -> str:
        """The stem of the word's American spelling."""
        return super().stem(american(word))
