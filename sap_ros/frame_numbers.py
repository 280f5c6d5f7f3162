"""Notices lost packets of a video by the numbers in its images' headers, where the decoders do not.

The decoders for h264 and av1 go on with the wrong earlier image in place of a lost one, and say nothing; the
images after it are smeared. FFmpeg's decoder for h265 is told by each image which earlier ones it needs.
"""

from __future__ import annotations


class FrameNumbers:
    """Notices a lost h264 packet by the images' ``frame_num`` (ITU-T H.264, 7.3 and 7.4.3)."""

    def __init__(self) -> None:
        self._bits = 0  # length of frame_num; 0: not known yet
        self._colour_planes = False
        self._last: int | None = None  # frame_num of the last image that others refer to

    def follows(self, data: bytes) -> bool:
        """Whether a packet is the next one that is needed after those before."""
        at = data.find(b"\0\0\1")
        while 0 <= at < len(data) - 3:
            kind, refers = data[at + 3] & 31, data[at + 3] >> 5 & 3
            if kind == 7:
                self._parameters(_Bits(data[at + 4 : at + 260]))
            elif kind in (1, 5) and self._bits:
                bits = _Bits(data[at + 4 : at + 36])
                for _ in ("first_mb_in_slice", "slice_type", "pic_parameter_set_id"):
                    bits.exp_golomb()
                if self._colour_planes:
                    bits.take(2)
                number, last = bits.take(self._bits), self._last
                if refers or kind == 5:
                    self._last = number
                if kind == 5 or last is None:
                    return True
                return number in (last, (last + 1) % (1 << self._bits))
            at = data.find(b"\0\0\1", at + 3)
        return True

    def _parameters(self, bits: _Bits) -> None:
        profile = bits.take(8)
        bits.take(16)
        bits.exp_golomb()
        self._colour_planes = False
        if profile in (100, 110, 122, 244, 44, 83, 86, 118, 128):
            formats = bits.exp_golomb()
            if formats == 3:
                self._colour_planes = bool(bits.take(1))
            bits.exp_golomb()
            bits.exp_golomb()
            bits.take(1)
            if bits.take(1):
                self._bits = 0  # scaling matrices precede the length: losses are not noticed
                return
        self._bits = min(bits.exp_golomb() + 4, 16)


class OrderHints:
    """Notices a lost av1 packet by the ``order_hint`` of the shown images (AV1 specification, 5.5 and 5.9.2).

    It counts the images in the order in which they are shown, one per packet. A stream may be without; then
    losses are not noticed. A lost image that no other refers to counts as well: nothing tells it from others.
    """

    def __init__(self) -> None:
        self._header: _Sequence | None = None
        self._last: int | None = None  # order_hint of the last shown image
        self._kept = [(-1, -1)] * 8  # type and order_hint of the frames that others can refer to

    def follows(self, data: bytes) -> bool:
        """Whether a packet is the next one after those before."""
        for kind, unit in obus(data):
            if kind == _SEQUENCE:
                self._header = _Sequence(unit)
            is_frame = kind in (_FRAME_HEADER, _FRAME)
            if is_frame and self._header and self._header.hint_bits:
                bits = _Bits(unit[:_HEADER_BYTES], escaped=False)
                if not self._follows(bits, self._header):
                    return False
        return True

    def _follows(self, bits: _Bits, header: _Sequence) -> bool:
        """Whether a frame is the next one to be shown, or one for later."""
        if bits.take(1):  # shows one that was sent before
            kind, hint = self._kept[bits.take(3)]
            if kind == _KEY:
                self._kept = [(kind, hint)] * 8
            return hint != self._last and self._shows(hint, header)
        kind, shown = bits.take(2), bits.take(1)
        if not shown:
            bits.take(1)  # showable_frame
        starts = bool(kind == _KEY and shown)
        independent = 1 if starts or kind == _SWITCH else bits.take(1)  # error_resilient_mode
        bits.take(1)
        screen = bits.take(1) if header.screen_content == _SELECT else header.screen_content
        if screen and header.integer_motion == _SELECT:
            bits.take(1)
        bits.take(header.id_bits)
        if kind != _SWITCH:
            bits.take(1)  # frame_size_override_flag
        hint = bits.take(header.hint_bits)
        if not (kind in (_KEY, _INTRA) or independent):
            bits.take(3)  # primary_ref_frame
        refreshed = 255 if starts or kind == _SWITCH else bits.take(8)
        for i in range(8):
            if refreshed >> i & 1:
                self._kept[i] = kind, hint
        if starts:
            self._last = hint
        return not shown or self._shows(hint, header)

    def _shows(self, hint: int, header: _Sequence) -> bool:
        last, self._last = self._last, hint
        # The layers of an image have the same number.
        return last is None or hint in (last, (last + 1) % (1 << header.hint_bits))


# Types of OBUs, types of frames, and the value with which a sequence leaves a choice to its frames.
_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY, _INTRA, _SWITCH = 0, 2, 3
_SELECT = 2
#: Number of bytes in which the number of a frame is found, and in which a sequence header ends.
_HEADER_BYTES, _SEQUENCE_BYTES = 64, 512
#: Maximum length of a unit's size.
_SIZE_BYTES = 8


class _Sequence:
    """What a sequence header says of the frames' headers.

    Attributes:
        hint_bits: length of ``order_hint``; 0: there is none, or it cannot be found.
        id_bits: length of ``current_frame_id``.
        screen_content, integer_motion: ``seq_force_screen_content_tools`` and ``seq_force_integer_mv``.
    """

    def __init__(self, unit: bytes) -> None:
        bits = _Bits(unit[:_SEQUENCE_BYTES], escaped=False)
        self.hint_bits = self.id_bits = 0
        self.screen_content = self.integer_motion = _SELECT
        bits.take(4)
        if bits.take(1):  # a still picture
            return
        modelled = self._timing(bits)
        widths = bits.take(4), bits.take(4)
        for width in widths:
            bits.take(width + 1)
        if bits.take(1):
            self.id_bits = bits.take(4) + bits.take(3) + 3
        bits.take(7)  # tools
        ordered = bits.take(1)
        if ordered:
            bits.take(2)
        if not bits.take(1):
            self.screen_content = bits.take(1)
        if self.screen_content and not bits.take(1):
            self.integer_motion = bits.take(1)
        # A model of the decoder puts times into the headers, before what frames refer to.
        if ordered and not modelled:
            self.hint_bits = bits.take(3) + 1

    def _timing(self, bits: _Bits) -> bool:
        """Reads over the timing and the operating points; returns whether there is a model of the decoder."""
        model = delay_bits = 0
        if bits.take(1):
            bits.take(64)
            if bits.take(1):
                bits.exp_golomb()
            model = bits.take(1)
            if model:
                delay_bits = bits.take(5) + 1
                bits.take(42)
        delays = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if model and bits.take(1):
                bits.take(2 * delay_bits + 1)
            if delays and bits.take(1):
                bits.take(4)
        return bool(model)


def obus(data: bytes) -> list[tuple[int, bytes]]:
    """The type and the payload of each unit of an av1 packet (AV1 specification, 5.3), up to one that is broken."""
    found = []
    at = 0
    while at < len(data):
        first = data[at]
        kind, extended, sized = first >> 3 & 15, first >> 2 & 1, first >> 1 & 1
        if first & 0x81 or not sized:  # reserved bits; all but the last must have a size
            break
        at += 1 + extended
        size = 0
        for k, byte in enumerate(data[at : at + _SIZE_BYTES]):  # LEB128
            size |= (byte & 127) << 7 * k
            if not byte & 128:
                break
        else:
            break
        at += k + 1
        found.append((kind, data[at : at + size]))
        at += size
    return found


class _Bits:
    """Reads bits; past the end they are 0.

    Args:
        data: a NAL unit; or an OBU, which has no emulation prevention bytes (``escaped`` is false).
    """

    def __init__(self, data: bytes, escaped: bool = True) -> None:
        clean = data.replace(b"\0\0\3", b"\0\0") if escaped else data
        self._value, self._left = int.from_bytes(clean, "big"), 8 * len(clean)

    def take(self, count: int) -> int:
        """The next bits as a number."""
        self._left -= count
        shifted = self._value >> self._left if self._left >= 0 else 0
        return shifted & ((1 << count) - 1)

    def exp_golomb(self) -> int:
        """The next unsigned Exp-Golomb code."""
        zeros = 0
        while self._left > 0 and not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)
