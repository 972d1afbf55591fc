"""A masked decoder of a few tokens whose mind is known: it reads each clip's text off the clip's states."""

import torch
from torch import Tensor

from speech_peft.decoders.diffusion.masked import MaskedDecoder, Memory, beside

END = 0


class Reads(MaskedDecoder):
    """States are the tokens themselves; the further to the right, the less sure it is.

    `wrong` places are misread while their left neighbour is masked.
    """

    end, vocabulary, room = END, 30, 64

    def __init__(self, wrong: tuple[int, ...] = ()):
        super().__init__()
        self.wrong, self.calls = wrong, []

    def memory(self, states: Tensor, mask=None, prompt=None) -> Memory:
        return Memory((states[:, None],), (states[:, None],), mask, prompt)

    def hidden(self, tokens: Tensor, masked: Tensor, memory: Memory) -> Tensor:
        k = beside(len(tokens), memory)
        self.calls.append(tuple(tokens.shape))
        truth = memory.keys[0][:, 0, :, 0].long().repeat_interleave(k, 0)
        length = tokens.shape[1]
        truth = torch.nn.functional.pad(truth, (0, max(0, length - truth.shape[1])))[:, :length].clone()
        blind = torch.nn.functional.pad(masked, (1, 0))[:, :-1]
        for place in self.wrong:
            truth[:, place] = torch.where(blind[:, place], 29, truth[:, place])
        sure = torch.linspace(8.0, 4.0, length)[None, :, None]
        return torch.nn.functional.one_hot(truth, self.vocabulary) * sure

    def attention(self, tokens: Tensor, memory: Memory) -> Tensor:
        return torch.eye(tokens.shape[1], memory.keys[0].shape[2])[None, None].expand(len(tokens), 1, -1, -1)

    def scores(self, hidden: Tensor) -> Tensor:
        return hidden

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, tokens) -> str:
        return " ".join(map(str, self.until_end(tokens)))


def clips(*texts: list[int]) -> Tensor:
    """States of clips in which these tokens are said."""
    width = max(map(len, texts))
    return torch.tensor([[*text, *[END] * (width - len(text))] for text in texts]).float()[..., None]
