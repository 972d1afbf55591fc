"""Recordings as FFmpeg decodes them, by PyAV: every sample at the time that its container gives it."""

import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from statistics import median
from typing import Any

import av
import av.error
import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from ...errors import AudioError
from .clock import Clock
from .files import PathLike

_SEEK_MARGIN = 1.0  # seconds decoded before a slice, so that codecs with memory have settled
_LATE_SECONDS = 0.02  # less is how encoders begin; more is a track that starts after the others
_READ_FRAMES = 1 << 17  # of silence at a time
_FIRST_FRAMES = 9  # that tell from where time stamps count
_SKIPPED = 1000  # damaged packets after each other: then there is nothing left to decode
# Demuxers that read one file and no other: playlists name further files, and live ones never end.
_FORMATS = (
    "3gp,aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,dtshd,eac3,flac,flv,g722,g726,gsm,ircam,matroska,"
    "m4a,mov,mp2,mp3,mp4,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,oma,rm,sox,tta,voc,w64,wav,webm,wv"
)
# Their time stamps are counts or guesses from the bit rate.
_UNTIMED_NAMES = (
    "aac ac3 aiff amr amrnb amrwb ape au caf dts dtshd eac3 flac g722 g726 gsm ircam mp3 mpc mpc8 nistsphere "
    "sox tta voc w64 wav wv"
)
_UNTIMED = frozenset(_UNTIMED_NAMES.split())
# Containers that write down how long they are; what FFmpeg says of others is a guess from the bit rate.
_DECLARING = frozenset(
    "aiff,ape,asf,au,avi,caf,flac,matroska,mov,ogg,tta,w64,wav,wv".split(",")  # noqa: SIM905
)
# From a packet in the middle these decode to what they decode to from the first. WMA does not.
_SEEKABLE = frozenset(
    "aac,ac3,alac,eac3,flac,mp2,mp3,mp3float,opus,libopus,vorbis,libvorbis".split(",")  # noqa: SIM905
)


class AvFile:
    """One audio track of a file. `declared` and `believed` are set from outside by who read the header."""

    def __init__(self, path: PathLike, track: int | None = None):
        """`track` counts audio tracks from 1; None takes the one marked as default, else the first."""
        self._path = path
        options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
        self._container = av.open(os.path.abspath(path), options=options)
        self.notes: list[str] = []
        self.believed = True
        """Whether what is declared is the length of what is there."""
        self.reached = 0.0
        """Seconds at which the last packet of any track ended, as far as they were read."""
        try:
            self._stream: Any = self._chosen(path, track)
            if self._stream.codec_context is None:
                raise AudioError(path, "its audio has a codec that neither libsndfile nor FFmpeg knows")
            self.rate, self.channels = self._stream.rate, self._stream.channels
            if not self.rate or not self.channels:
                raise AudioError(path, "its audio stream names no sample rate or channels")
        except BaseException:
            self._container.close()
            raise
        names = set(self._container.format.name.split(","))
        self._timed = not names & _UNTIMED
        codec = self._stream.codec_context.name
        pcm = codec.startswith(("pcm_", "adpcm_ms"))
        self._seekable = (pcm or codec in _SEEKABLE) and (
            self._timed or names <= {"mp3", "wav", "flac", "caf"}
        )
        self.format = f"{self._container.format.name} {codec}"
        self._tick = self._stream.time_base or Fraction(1, self.rate)
        self._origin = (self._container.start_time or 0) / av.time_base
        self.declared: float | None = self._declared() if names & _DECLARING else None

    def _chosen(self, path: PathLike, track: int | None) -> Any:
        tracks = self._container.streams.audio
        if not tracks:
            raise AudioError(path, "no audio stream")
        if track is not None and not 1 <= track <= len(tracks):
            raise AudioError(path, f"has {len(tracks)} audio track(s); there is no track {track}")
        marked = [
            at for at, stream in enumerate(tracks, 1) if stream.disposition & 1
        ]  # AV_DISPOSITION_DEFAULT
        chosen = track or (marked[0] if marked else 1)
        if len(tracks) > 1:
            why = "as asked" if track else "marked as default" if marked else "the first"
            self.notes.append(f"has {len(tracks)} audio tracks; track {chosen} was read ({why})")
        return tracks[chosen - 1]

    def _declared(self) -> float | None:
        """How long the track, or else the whole file, says it is, from the file's start."""
        duration = self._stream.duration
        if duration is not None:
            return float(duration * self._tick) + self._late()
        return None if self._container.duration is None else self._container.duration / av.time_base

    def _late(self) -> float:
        """Seconds by which the track begins after the file does."""
        if not self._timed or self._stream.start_time is None:
            return 0.0
        late = float(self._stream.start_time * self._tick) - self._origin
        return late if late > _LATE_SECONDS else 0.0

    def length(self) -> float:
        """Seconds of audio; where nothing declares them, by going through the packets. Once."""
        alone = len(self._container.streams) == 1 or self._stream.duration is not None
        if self.declared is not None and self.believed and alone:
            return self.declared
        clock, each = self._clock(exact=True), 0
        for packet in self._packets():
            if packet.stream is self._stream and packet.size:
                each = packet.duration or each
                clock.place(packet.pts if self._timed else None, round(each * self._tick * self.rate))
        if each:
            return clock.at / self.rate
        self._container.close()
        other = AvFile(self._path)
        try:
            return sum(len(block) for block in other.blocks(0.0)) / self.rate
        finally:
            other.close()

    def _clock(self, exact: bool = False) -> Clock:
        return Clock(self.rate, self._tick, round(self._late() * self.rate), exact)

    def blocks(self, start: float) -> Iterator[Float32[ndarray, "n c"]]:
        """Samples from `start` on, silence where time stamps leave a gap."""
        clock, wanted = self._clock(), round(start * self.rate)
        if self._seekable and start > 2 * _SEEK_MARGIN:
            self._seek(clock, start)
        given = wanted  # up to here everything was yielded
        for frame, samples in self._frames():
            at = clock.place(frame.pts if self._timed or clock.sought else None, len(samples))
            while at > given:
                silence = min(at - given, _READ_FRAMES)
                yield np.zeros((silence, self.channels), np.float32)
                given += silence
            if at + len(samples) > given:
                yield samples[given - at :]
                given = at + len(samples)
        if clock.restarts:
            self.notes.append(f"its time stamps start anew {clock.restarts} times; the parts were joined")

    def _seek(self, clock: Clock, start: float) -> None:
        """To a packet before `start`; the first frames of all say from where time stamps count."""
        zero = self._zero()
        back = max(0.0, start - _SEEK_MARGIN - self._late())
        try:
            if zero is not None:
                clock.begin(zero)
                self._container.seek(int(zero + back / self._tick), stream=self._stream)
                clock.seek()
                return
        except av.error.FFmpegError:
            pass
        self._container.seek(0)

    def _zero(self) -> float | None:
        """The time stamp of the first sample: a median, as each is rounded and the first is trimmed."""
        at, zeros = 0, list[float]()
        for frame, samples in islice(self._frames(), _FIRST_FRAMES):
            if frame.pts is not None:
                zeros.append(frame.pts - at / self.rate / float(self._tick))
            at += len(samples)
        return median(zeros) if zeros else None

    def _frames(self) -> Iterator[tuple[av.AudioFrame, Float32[ndarray, "n c"]]]:
        """Decoded frames, as the track began: a later change of rate or channels is converted."""
        shape, to_float, layout = None, None, None
        for packet in self._packets():
            if packet.stream is not self._stream:
                continue
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                continue  # one damaged packet, as players skip it; the total length tells if much is missing
            for frame in frames:
                if to_float is None or shape != (frame.format.name, frame.layout.name, frame.sample_rate):
                    shape = (frame.format.name, frame.layout.name, frame.sample_rate)
                    layout = layout or frame.layout
                    to_float = av.AudioResampler("fltp", layout, self.rate)
                for converted in to_float.resample(frame):
                    yield frame, converted.to_ndarray().T

    def _packets(self) -> Iterator[Any]:
        """Every packet, those of other tracks too: they tell how far the file goes."""
        failed = 0
        streams = [self._stream] if not self._timed else list(self._container.streams)
        packets = self._container.demux(*streams)
        while failed < _SKIPPED:
            try:
                packet = next(packets)
            except (StopIteration, av.error.EOFError):
                return
            except av.error.FFmpegError:
                failed, packets = failed + 1, self._container.demux(*streams)
                continue
            failed = 0
            if packet.pts is not None and packet.time_base is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - self._origin
                self.reached = max(self.reached, end)
            yield packet

    def close(self) -> None:
        self._container.close()
