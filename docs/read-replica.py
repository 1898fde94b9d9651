#!/usr/bin/env python3
"""Restores a database from a replica in a folder, by docs/format.md alone and without any library.

    docs/read-replica.py REPLICA OUTPUT [TRANSACTION]

It proves everything that the format proves, and is slow: some megabytes a minute.
"""

import json
import os
import re
import struct
import sys
import zlib

MASK = 2**64 - 1


def unpack_lz4(stored, size, dictionary=b""):
    """An LZ4 block."""
    out, at = bytearray(dictionary), 0
    while True:
        token = stored[at]
        at += 1
        literals, at = length_of(stored, at, token >> 4)
        out += stored[at : at + literals]
        at += literals
        if at == len(stored):
            break
        offset = stored[at] | stored[at + 1] << 8
        copied, at = length_of(stored, at + 2, token & 15)
        assert 0 < offset <= len(out)
        for _ in range(copied + 4):
            out.append(out[-offset])
    del out[: len(dictionary)]
    assert len(out) == size
    return bytes(out)


def length_of(stored, at, length):
    more = 255 if length == 15 else 0
    while more == 255:
        more = stored[at]
        at += 1
        length += more
    return length, at


SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
PRIMES = [
    0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
]  # fmt: skip
PRIME32 = [0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D]


def words(data, at, count):
    return struct.unpack_from(f"<{count}Q", data, at)


def page_hash(page, number):
    """XXH3-64 of at least 241 bytes, seeded."""
    pairs = [words(SECRET, at, 2) for at in range(0, 192, 16)]
    secret = b"".join(
        struct.pack("<2Q", (low + number) & MASK, (high - number) & MASK) for low, high in pairs
    )
    acc = [
        PRIME32[2], PRIMES[0], PRIMES[1], PRIMES[2],
        PRIMES[3], PRIME32[1], PRIMES[4], PRIME32[0],
    ]  # fmt: skip

    def stripe(at, secret_at):
        data, keys = words(page, at, 8), words(secret, secret_at, 8)
        for lane in range(8):
            keyed = data[lane] ^ keys[lane]
            acc[lane ^ 1] = (acc[lane ^ 1] + data[lane]) & MASK
            acc[lane] = (acc[lane] + (keyed & 0xFFFFFFFF) * (keyed >> 32)) & MASK

    for n in range((len(page) - 1) // 64):
        stripe(64 * n, n % 16 * 8)
        if n % 16 == 15:
            for lane, key in enumerate(words(secret, 128, 8)):
                acc[lane] = (acc[lane] ^ acc[lane] >> 47 ^ key) * PRIME32[0] & MASK
    stripe(len(page) - 64, 121)
    result = len(page) * PRIMES[0] & MASK
    keys = words(secret, 11, 8)
    for lane in range(0, 8, 2):
        product = (acc[lane] ^ keys[lane]) * (acc[lane + 1] ^ keys[lane + 1])
        result = (result + (product & MASK ^ product >> 64)) & MASK
    result = (result ^ result >> 37) * 0x165667919E3779F9 & MASK
    return result ^ result >> 32


class Part:
    """One part of an object: its header's fields, and its payload."""

    def __init__(self, data, at):
        magic, self.kind, version, flags, log_size = struct.unpack_from("<4s4B", data, at)
        assert (magic, version, flags & ~9) == (b"GRPT", 1, 0)
        told = 8 if flags & 8 else 0
        self.page_size = 1 << log_size
        self.epoch, *self.generation = struct.unpack_from("<IIQ", data, at + 8)
        self.first, self.last = struct.unpack_from("<2Q", data, at + 24)
        self.before, self.after, size = struct.unpack_from("<2QI", data, at + 76)
        self.payload = data[at + 96 : at + 96 + size]
        self.stored = struct.unpack_from("<Q", data, at + 96 + size)[0] if told else None
        self.end = at + size + told + 104
        whole, crc = struct.unpack_from("<2I", data, self.end - 8)
        assert whole == size + told + 104
        assert crc == zlib.crc32(data[at : self.end - 4])


def parts_of(data):
    at, parts = 0, []
    while at < len(data):
        parts.append(Part(data, at))
        at = parts[-1].end
    return parts


class Replica:
    def __init__(self, folder):
        self.folder = folder
        with open(f"{folder}/genesis.json") as file:
            assert json.load(file)["format"] == 1
        self.names = sorted(
            os.path.relpath(os.path.join(root, file), folder)
            for root, _, files in os.walk(folder)
            for file in files
        )
        self.known = 0
        self.cuts = self.find_cuts()

    def read(self, name):
        """An object: of its copies the one with the highest repair number."""
        stem, extension = os.path.splitext(name)
        copies = [n for n in self.names if re.fullmatch(re.escape(stem) + r"-r\d{5}" + extension, n)]
        with open(f"{self.folder}/{max(copies, default=name)}", "rb") as file:
            return file.read()

    def matching(self, pattern):
        """Names with their fields. Texts of digits compare as their numbers do."""
        found = (re.fullmatch(pattern, name) for name in self.names)
        return [(match[0], *match.groups()) for match in found if match]

    def find_cuts(self):
        """Each known epoch with its base, newest first; and which transaction was there for certain."""
        bases = [int(epoch) for _, epoch in self.matching(r"epochs/(\d{10})\.base")]
        writers = [int(e) for _, e in self.matching(r".*-(\d{10})(?:-r\d{5})?\.seg")]
        writers += [int(e) for _, e in self.matching(r".*-(\d{10})-\d{10}(?:-r\d{5})?\.manifest")]
        ended = [int(epoch) for _, epoch in self.matching(r"epochs/(\d{10})\.release")]
        known, epoch = [], max(bases + writers + ended, default=None)
        if epoch in ended:
            self.known = self.record(f"epochs/{epoch:010}.release").get("txid", 0)
        while epoch is not None:
            base = self.record(f"epochs/{epoch:010}.base")
            if not known:
                known.append((epoch, base["txid"]))
                self.known = max(self.known, base["txid"])
            before = [tuple(pair) for pair in base["before"]]
            known += before
            oldest = before[-1][0] if len(before) == 256 else 0
            epoch = oldest if oldest > min(writers, default=oldest) else None
        return known

    def record(self, name):
        sealed = json.loads(self.read(name))
        text = json.dumps(sealed["record"], separators=(",", ":"), ensure_ascii=False)
        assert int(sealed["crc32"], 16) == zlib.crc32(text.encode())
        return sealed["record"]

    def last_of(self, writer):
        """The last transaction of a writer that is history."""
        if not self.cuts or writer >= self.cuts[0][0]:
            return MASK
        if writer < self.cuts[-1][0]:
            return min(base for _, base in self.cuts)
        if writer not in (epoch for epoch, _ in self.cuts):
            return 0
        return min(base for epoch, base in self.cuts if epoch > writer)

    def snapshot(self, wanted):
        """The generation, transaction and name of the snapshot to begin with."""
        pattern = r"(\d{10}-[0-9a-f]{16})/snapshots/(\d{20})-\d{14}-(\d{10})-\d{10}\.manifest"
        found = [
            (generation, int(txid), name)
            for name, generation, txid, epoch in self.matching(pattern)
            if int(txid) <= min(wanted, self.last_of(int(epoch)))
        ]
        return max(found)

    def chain(self, generation, txid, wanted):
        """The segments that go on from a transaction, and the last one of each that counts."""
        pattern = generation + r"/wal/(\d\d)/(\d{20})-(\d{20})-\d{14}-(\d{10})\.seg"
        segments = [
            (min(int(last), self.last_of(int(epoch))), level, epoch, int(first), name)
            for name, level, first, last, epoch in self.matching(pattern)
            if int(first) <= self.last_of(int(epoch))
        ]
        while txid < wanted:
            reach = [s for s in segments if s[3] <= txid + 1 <= s[0]]
            if not reach:
                behind = [s for s in segments if s[3] > txid + 1]
                assert wanted == MASK and txid >= self.known
                assert not behind or self.were_under_way(txid, behind, segments)
                return
            txid, *_, name = max(reach)
            yield name, txid

    def were_under_way(self, reached, behind, segments):
        """Whether segments behind a gap are what a writer that was killed can have left there."""
        newest = max(epoch for _, _, epoch, *_ in segments)
        return (
            len(behind) < 8
            and all((level, epoch) == ("00", newest) for _, level, epoch, *_ in behind)
            and all(self.tells_stored(*segment) <= reached for segment in behind)
            and f"epochs/{newest}.release" not in self.names
        )


    def tells_stored(self, last, _level, epoch, first, name):
        """Up to which transaction everything was stored when a segment was made that is whole."""
        parts = parts_of(self.read(name))
        ends = [first - 1, *(part.last for part in parts)]
        for before, part in zip(ends, parts):
            assert part.kind == 1 and part.epoch == int(epoch)
            assert "{:010}-{:016x}".format(*part.generation) == name[:27]
            assert before <= part.first <= before + 1
        assert ends[-1] == last
        return max((part.stored for part in parts if part.stored is not None), default=MASK)


class Database:
    """The pages of a state, each with its hash."""

    def __init__(self, page_size):
        self.page_size = page_size
        self.lock_page = (1 << 30) // page_size + 1
        self.pages, self.hashes = {}, {}

    def put(self, number, page):
        self.pages[number] = page
        self.hashes[number] = 0 if number == self.lock_page else page_hash(page, number)

    def shrink(self, count):
        for number in [n for n in self.pages if n > count]:
            del self.pages[number], self.hashes[number]

    def state(self):
        return sum(self.hashes.values()) & MASK

    def read_snapshot(self, replica, payload, state):
        version, flags, count = struct.unpack_from("<BBxxI", payload, 0)
        packs, blocks = struct.unpack_from("<2I", payload, 36)
        assert version == 1 and flags <= 1
        objects = []
        for at in range(44, 44 + 32 * packs, 32):
            epoch, random, writer, attempt, part, size = struct.unpack_from("<IQIIIQ", payload, at)
            name = f"{epoch:010}-{random:016x}/packs/{writer:010}-{attempt:010}-{part:010}.pack"
            objects.append(replica.read(name))
            assert len(objects[-1]) == size
        at, next_block = 44 + 32 * packs, 0
        while at < len(payload):
            block, run, pack, offset = struct.unpack_from("<IIIQ", payload, at)
            assert block == next_block
            for entry in range(at + 20, at + 20 + 15 * run, 15):
                less_one, encoding, crc, total = struct.unpack_from("<HBIQ", payload, entry)
                stored = objects[pack][offset : offset + less_one + 1]
                assert zlib.crc32(stored) == crc
                self.put_block(next_block, count, stored, encoding, total)
                offset += len(stored)
                next_block += 1
            at += 20 + 15 * run
        assert next_block == blocks and self.state() == state

    def put_block(self, block, count, stored, encoding, total):
        per_block = 65536 // self.page_size
        first = block * per_block + 1
        size = min(per_block, count + 1 - first) * self.page_size
        raw = stored if encoding == 0 else unpack_lz4(stored, size)
        assert encoding <= 1 and len(raw) == size
        numbers = range(first, first + size // self.page_size)
        for n, number in enumerate(numbers):
            self.put(number, raw[n * self.page_size : (n + 1) * self.page_size])
        assert sum(self.hashes[number] for number in numbers) & MASK == total

    def unpack(self, number, encoding, stored):
        base, size = self.pages.get(number, b""), self.page_size
        if encoding == 0:
            return stored
        if encoding == 1:
            return unpack_lz4(stored, size)
        if encoding == 2:
            return unpack_lz4(stored, size, base)
        assert encoding == 3
        half, cut = size // 2, 2 + (stored[0] | stored[1] << 8)
        first = unpack_lz4(stored[2:cut], half, base[:half])
        return first + unpack_lz4(stored[cut:], half, base[half:])

    def apply(self, payload, reached, wanted):
        """The transactions of a part after the one that is reached; the last one then."""
        at = 0
        while at < len(payload):
            txid, kind, flags = struct.unpack_from("<QBB", payload, at)
            count, records, done, here, state = struct.unpack_from("<4IQ", payload, at + 32)
            assert kind in (1, 2, 3) and flags <= 1
            at += 56
            wants = reached < txid <= wanted
            assert txid <= reached + 1 or not wants
            for _ in range(here):
                number, encoding, less_one, wanted_hash = struct.unpack_from("<IBHQ", payload, at)
                stored = payload[at + 15 : at + 16 + less_one]
                at += 15 + len(stored)
                if wants:
                    self.put(number, self.unpack(number, encoding, stored))
                    assert self.hashes[number] == wanted_hash
            if wants and done + here == records:
                self.shrink(count)
                lock_page_is_hole = self.lock_page <= count and self.lock_page not in self.pages
                assert len(self.pages) + lock_page_is_hole == count and self.state() == state
                reached = txid
        return reached


def restore(folder, output, wanted):
    replica = Replica(folder)
    generation, reached, name = replica.snapshot(wanted)
    parts = parts_of(replica.read(name))
    assert all(part.kind == 4 and part.last == reached for part in parts)
    database = Database(parts[0].page_size)
    payload = b"".join(part.payload for part in parts)
    database.read_snapshot(replica, payload, parts[0].after)
    for name, last in replica.chain(generation, reached, wanted):
        for part in parts_of(replica.read(name)):
            assert part.kind == 1 and part.page_size == database.page_size
            assert part.first != reached + 1 or part.before == database.state()
            reached = database.apply(part.payload, reached, min(last, wanted))
        assert reached == min(last, wanted)
    assert wanted in (MASK, reached)
    with open(output, "xb") as file:
        for number in sorted(database.pages):
            file.seek((number - 1) * database.page_size)
            file.write(database.pages[number])
    print(f"transaction {reached}, state {database.state():016x}")


if __name__ == "__main__":
    restore(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else MASK)
