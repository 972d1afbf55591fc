# What type checkers and editors know of the package: the names of `_PUBLIC`, and that all others are methods.
from .backbones.families import open_backbone as open_backbone
from .bench.evaluate import evaluate as evaluate
from .classify.classifier import Classifier as Classifier
from .core.context import Context as Context
from .core.method import Method as Method
from .core.model import AdaptedModel as AdaptedModel
from .core.site import Site as Site
from .generate.generator import Generator as Generator
from .opening.adapt import adapt as adapt
from .opening.adapted import Adapted as Adapted
from .opening.adapted import load as load
from .opening.merging import merge_adapters as merge_adapters
from .restore.restorer import Restorer as Restorer
from .train.python import build as build
from .train.python import fit as fit
from .transcribe.transcriber import Transcriber as Transcriber

__version__: str

def __getattr__(name: str) -> type[Method]: ...
