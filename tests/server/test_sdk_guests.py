"""The clients behind LM Studio's sockets, and their files."""

from __future__ import annotations

import pytest

from llamarunner.dialects.lmstudio.sdk_frames import Hello
from llamarunner.dialects.lmstudio.sdk_uploads import Upload
from llamarunner.errors import InvalidRequest, Unauthorized
from llamarunner.server.sdk_guests import Guests


def hello(identifier: str = "me", passkey: str = "secret") -> Hello:
    return Hello.model_validate({"authVersion": 1, "clientIdentifier": identifier, "clientPasskey": passkey})


def upload(size: int) -> Upload:
    return Upload("image", "image/png", "A" * size, size)


def test_a_client_is_known_as_long_as_it_has_a_socket() -> None:
    guests = Guests()
    with guests.hosting(hello()) as first, guests.hosting(hello()) as second:
        assert first is second
        with pytest.raises(Unauthorized, match='for client "me"'), guests.hosting(hello(passkey="other")):
            pass
    with guests.hosting(hello(passkey="other")) as third:
        assert third is not first
    assert not guests._guests


def test_passkeys_may_be_of_any_letters() -> None:
    guests = Guests()
    with guests.hosting(hello(passkey="Ω")), guests.hosting(hello(passkey="Ω")):
        pass


def test_files_are_kept_for_their_client() -> None:
    guests = Guests()
    with guests.hosting(hello()) as me, guests.hosting(hello("you")) as you:
        name = guests.keep(me, upload(4))
        assert guests.find(me, name, "p").size == 4
        with pytest.raises(InvalidRequest) as refused:
            guests.find(you, name, "place")
        assert refused.value.param == "place"
    with guests.hosting(hello()) as me, pytest.raises(InvalidRequest):
        guests.find(me, name, "p")
    assert guests._bytes == 0


def test_the_oldest_file_goes_when_there_is_too_much() -> None:
    guests = Guests(most_bytes=10)
    with guests.hosting(hello()) as me, guests.hosting(hello("you")) as you:
        first, second = guests.keep(me, upload(4)), guests.keep(you, upload(5))
        third = guests.keep(you, upload(5))
        with pytest.raises(InvalidRequest):
            guests.find(me, first, "p")
        assert [guests.find(you, name, "p").size for name in (second, third)] == [5, 5]
        with pytest.raises(InvalidRequest, match="too large"):
            guests.keep(me, upload(11))
        assert guests._bytes == 10
