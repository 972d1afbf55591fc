"""Signals wait for a result and the record of it, no longer."""

import signal

import pytest

from speech_peft.terminal.interrupts import held, sigterm_as_ctrl_c

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture(autouse=True)
def as_on_a_terminal():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with sigterm_as_ctrl_c():
        yield
    signal.signal(signal.SIGINT, before)


@SIGNALS
def test_a_signal_waits_for_what_belongs_together(number):
    done = []

    def result():
        with held():
            signal.raise_signal(number)
            done.append("the record")

    with pytest.raises(KeyboardInterrupt):
        result()
    assert done == ["the record"]


@SIGNALS
def test_a_second_signal_does_not_wait(number):
    done = []

    def result():
        with held():
            signal.raise_signal(number)
            signal.raise_signal(number)
            done.append("the record")

    with pytest.raises(KeyboardInterrupt):
        result()
    assert done == []


def test_an_error_on_the_way_is_not_hidden_by_a_signal():
    def result():
        with held():
            signal.raise_signal(signal.SIGTERM)
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        result()


def test_what_signals_did_before_they_do_after():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with held():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_signal_that_is_ignored_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held():
        signal.raise_signal(signal.SIGINT)
