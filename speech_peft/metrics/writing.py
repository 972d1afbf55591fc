"""How scripts write words: which put no space between them, and how texts join. Read off the text itself."""

import re
from collections import Counter
from collections.abc import Iterable

SENTENCE_END = (".", "?", "!", "。", "？", "！", "…")
# Chinese characters, kana, bopomofo, Thai, Lao, Tibetan, Burmese, Khmer. Korean writes spaces.
_LETTERS = (
    "\u0e00-\u0edf\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\u3005-\u3007\u3021-\u3029\u3031-\u303b"
    "\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9fe\uaa60-\uaa7f\uf900-\ufaff"
    "\uff66-\uff9d\U0001b000-\U0001b16f\U00020000-\U000323af"
)
_MARKS = (
    "\u3000-\u3004\u3008-\u3020\u3030\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"  # of such texts
)
_LETTER = re.compile(f"[{_LETTERS}]")
_SPACE = re.compile(rf"(?<=[{_LETTERS}{_MARKS}])\s+|\s+(?=[{_LETTERS}{_MARKS}])")


def stands_alone(text: str) -> bool:
    """Whether it has a letter of a script without spaces: such a letter may be a word by itself.

    >>> [stands_alone(text) for text in ("今天", "word", "안녕")]
    [True, False, False]
    """
    return _LETTER.search(text) is not None


def unspaced(texts: Iterable[str]) -> bool:
    """Whether most letters of all these texts are of scripts without spaces: there characters are counted.

    >>> unspaced(["今天 iPhone 天气很好吗"]), unspaced(["the word 天"]), unspaced([])
    (True, False, False)
    """
    times: Counter[str] = Counter()  # of each character: each is looked at once, however long the texts are
    for text in texts:
        times.update(text)
    alone = {char for char in times if _LETTER.match(char)}
    others = sum(n for char, n in times.items() if char.isalpha() and char not in alone)
    return sum(times[char] for char in alone) > others


def without_spaces(text: str) -> str:
    """Without the spaces beside letters of such a script, which nobody is bound to write.

    >>> without_spaces("今天 天气 iPhone 15 Pro 好")
    '今天天气iPhone 15 Pro好'
    """
    return text if text.isascii() else _SPACE.sub("", text)


def joined(texts: Iterable[str]) -> str:
    """One text of several, with a space between two only where their scripts write one.

    >>> joined(["Good morning.", "Hello."]), joined(["你好。", "今天"])
    ('Good morning. Hello.', '你好。今天')
    """
    found = ""
    for text in texts:
        if not found or not text:
            found += text
            continue
        found += without_spaces(f"{found[-1]} {text[0]}")[1:-1] + text
    return found
