"""A pytest plugin that checks every annotation of the package, shapes included, while tests run.

    scripts/test -p tests.beartyped tests/unit

beartype as it comes takes an int for no float; Python's own typing rules do, and so does this.
"""

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
install_import_hook("speech_peft", f"{__name__}.check")
