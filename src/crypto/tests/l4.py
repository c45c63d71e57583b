"""AES-256-GCM-L4 a second time, written from docs/streams.md alone, on the package `cryptography`.

    l4.py vectors FILE                               checks every value in the file
    l4.py receive KEYS.json < frames > payload       prints the confirmation on stderr
    l4.py send KEYS.json ROTATE SIZE < payload > frames     likewise; ROTATE bytes an epoch, SIZE bytes a packet
"""

import base64
import hashlib
import hmac
import json
import os
import struct
import sys

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PAYLOAD_TYPE = "application/vnd.chimera.epoch+json"
FIXED = {
    "_type": "https://chimera.dunes.io/epoch/v1",
    "suite": "ML-DSA-87",
    "kem": "ML-KEM-1024",
    "aead": "AES-256-GCM-L4",
}
EPOCH_PACKETS = 2**24
WINDOW = 1024
OVERLAP = 4


class Refused(Exception):
    pass


def demand(holds, why):
    if not holds:
        raise Refused(why)


# HKDF with SHA3-512, from RFC 5869.


def mac(key, message):
    return hmac.new(key, message, hashlib.sha3_512).digest()


def extract(salt, ikm):
    return mac(salt, ikm)


def expand(prk, info, length):
    output, block, counter = b"", b"", 1
    while len(output) < length:
        block = mac(prk, block + info + bytes([counter]))
        output, counter = output + block, counter + 1
    return output[:length]


# Keys and their ids.


def spki(public):
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_id(public):
    return hashlib.sha256(spki(public)).hexdigest()


class Epoch:
    """The keys of one epoch."""

    def __init__(self, number, secret, sid):
        self.number, self.secret, self.sid = number, secret, sid
        n = struct.pack(">H", number)
        self.keys = [expand(secret, b"l4/v1 lane" + bytes([i]) + n + sid, 32) for i in range(4)]
        self.commitment = expand(secret, b"l4/v1 commit" + n + sid, 32)
        self.aad = b"\x01" + sid

    @classmethod
    def first(cls, ss, receiver, sender, ct, sid, context):
        material = [
            b"l4/v1 salt",
            receiver.public_bytes_raw(),
            ct,
            key_id(receiver).encode(),
            key_id(sender).encode(),
            sid,
            context,
        ]
        prk = extract(hashlib.sha3_512(b"".join(material)).digest(), ss)
        return cls(0, expand(prk, b"l4/v1 epoch0", 64), sid)

    def next(self):
        return Epoch(self.number + 1, expand(self.secret, b"l4/v1 ratchet", 64), self.sid)

    def confirmation(self, packets):
        info = b"l4/v1 delivered" + struct.pack(">H", self.number) + self.sid + struct.pack(">Q", packets)
        return expand(self.secret, info, 32)

    def seal(self, seq, final, payload):
        demand(len(payload) <= 65536, "too long")
        nonce = struct.pack(">HBBQ", self.number, seq % 4, int(final), seq)
        return nonce + AESGCM(self.keys[seq % 4]).encrypt(nonce, payload, self.aad)

    def open(self, packet):
        try:
            return AESGCM(self.keys[packet[2]]).decrypt(packet[:12], packet[12:], self.aad)
        except InvalidTag:
            raise Refused("tag") from None


# Headers.


def pae(payload):
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def strict_json(text):
    def distinct(pairs):
        demand(len({name for name, _ in pairs}) == len(pairs), "a field twice")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=distinct)


def sign_header(fields, sender):
    payload = json.dumps(fields, separators=(",", ":")).encode()
    signature = {"keyid": key_id(sender.public_key()), "sig": base64.b64encode(sender.sign(pae(payload))).decode()}
    envelope = {"payloadType": PAYLOAD_TYPE, "payload": base64.b64encode(payload).decode(), "signatures": [signature]}
    return json.dumps(envelope).encode()


def verify_header(text, sender):
    envelope = strict_json(text)
    demand(set(envelope) == {"payloadType", "payload", "signatures"}, "fields of the envelope")
    demand(envelope["payloadType"] == PAYLOAD_TYPE, "payload type")
    (signature,) = envelope["signatures"]
    demand(set(signature) == {"keyid", "sig"}, "fields of the signature")
    demand(signature["keyid"] == key_id(sender), "another key")
    payload = base64.b64decode(envelope["payload"], validate=True)
    try:
        sender.verify(base64.b64decode(signature["sig"], validate=True), pae(payload))
    except InvalidSignature:
        raise Refused("signature") from None
    header = strict_json(payload)
    names = set(FIXED) | {"sid", "kid", "epoch", "first", "cmt"} | ({"ct"} if header["epoch"] == 0 else set())
    demand(set(header) == names, "fields of the header")
    demand(all(header[name] == value for name, value in FIXED.items()), "names in the header")
    return header


# The two sides.


class Receiver:
    def __init__(self, header, key, sender, context):
        self.sender = sender
        header = verify_header(header, sender)
        ours = key.public_key()
        demand(header["kid"] == key_id(ours), "another receiver")
        demand((header["epoch"], header["first"]) == (0, 0), "not a first header")
        ct = base64.b64decode(header["ct"], validate=True)
        demand(len(ct) == 1568, "ciphertext")
        self.sid, self.kid = bytes.fromhex(header["sid"]), header["kid"]
        self.epoch = Epoch.first(key.decapsulate(ct), ours, sender, ct, self.sid, context)
        demand(hmac.compare_digest(self.epoch.commitment.hex(), header["cmt"]), "commitment")
        self.first, self.previous = 0, None
        self.seen, self.highest, self.final = set(), -1, None

    def rotate(self, header):
        header = verify_header(header, self.sender)
        first, epoch = header["first"], self.epoch.next()
        demand((bytes.fromhex(header["sid"]), header["kid"]) == (self.sid, self.kid), "another stream")
        demand(header["epoch"] == epoch.number, "order of epochs")
        demand(max(self.highest, self.first) < first <= self.first + EPOCH_PACKETS, "first packet")
        demand(self.final is None, "after the end")
        demand(hmac.compare_digest(epoch.commitment.hex(), header["cmt"]), "commitment")
        self.previous = (self.epoch, range(self.first, first), False)
        self.epoch, self.first = epoch, first

    def open(self, packet):
        demand(28 <= len(packet) <= 65564, "length")
        number, lane, flags, seq = struct.unpack(">HBBQ", packet[:12])
        demand(flags in (0, 1), "flags")
        demand(lane == seq % 4, "lane")
        if number == self.epoch.number:
            epoch, accepted = self.epoch, range(self.first, self.first + EPOCH_PACKETS)
        else:
            demand(self.previous and number == self.previous[0].number, "epoch")
            epoch, accepted, _ = self.previous
        demand(seq in accepted, "number")
        if self.final is not None:
            demand(seq < self.final and not flags, "after the end")
        demand(not flags or (seq > self.highest and epoch is self.epoch), "final packet")
        demand(seq > self.highest - WINDOW and seq not in self.seen, "replay")
        payload = epoch.open(packet)
        self.seen.add(seq)
        self.highest = max(self.highest, seq)
        if flags:
            self.final = seq
        if epoch is self.epoch and self.previous and not self.previous[2]:
            old, numbers, _ = self.previous
            self.previous = (old, range(max(numbers.start, numbers.stop - 1 - OVERLAP), numbers.stop), True)
        return payload

    def finish(self):
        demand(self.final is not None, "cut off")
        demand(len(self.seen) == self.final + 1, "packets are missing")
        return self.epoch.confirmation(len(self.seen))


class Sender:
    def __init__(self, receiver, key, context, rotate):
        self.key, self.kid, self.rotate = key, key_id(receiver), rotate
        ss, ct = receiver.encapsulate()
        self.epoch = Epoch.first(ss, receiver, key.public_key(), ct, os.urandom(16), context)
        self.seq, self.sent, self.payload = 0, 0, 0
        self.header = self.sign({"ct": base64.b64encode(ct).decode()})

    def sign(self, more):
        fields = {"sid": self.epoch.sid.hex(), "kid": self.kid, "epoch": self.epoch.number, "first": self.seq}
        return sign_header({**FIXED, **fields, "cmt": self.epoch.commitment.hex(), **more}, self.key)

    def seal(self, payload, final):
        """The header that goes first, or None, and the packet."""
        header = None
        if self.sent and (self.sent == EPOCH_PACKETS or self.payload + len(payload) > self.rotate):
            self.epoch, self.sent, self.payload = self.epoch.next(), 0, 0
            header = self.sign({})
        packet = self.epoch.seal(self.seq, final, payload)
        self.seq, self.sent, self.payload = self.seq + 1, self.sent + 1, self.payload + len(payload)
        return header, packet


# Transports of bytes.


def read_frames(stream):
    while head := stream.read(5):
        kind, length = struct.unpack(">BI", head)
        least, most = {1: (1, 32768), 2: (28, 65564)}[kind]
        demand(least <= length <= most, "length of a frame")
        body = stream.read(length)
        demand(len(body) == length, "cut off")
        yield kind, body


def write_frame(stream, kind, body):
    stream.write(struct.pack(">BI", kind, len(body)) + body)


def keys(path):
    with open(path, encoding="ascii") as file:
        given = {name: bytes.fromhex(value) for name, value in json.load(file).items()}
    receiver = MLKEM1024PrivateKey.from_seed_bytes(given["receiverSeed"])
    sender = MLDSA87PrivateKey.from_seed_bytes(given["senderSeed"])
    return receiver, sender, given["context"]


def receive(path):
    key, sender, context = keys(path)
    frames = read_frames(sys.stdin.buffer)
    kind, header = next(frames)
    demand(kind == 1, "a header first")
    receiver = Receiver(header, key, sender.public_key(), context)
    for kind, body in frames:
        if kind == 1:
            receiver.rotate(body)
        else:
            sys.stdout.buffer.write(receiver.open(body))
    print(receiver.finish().hex(), file=sys.stderr)


def send(path, rotate, size):
    receiver, key, context = keys(path)
    sender = Sender(receiver.public_key(), key, context, rotate)
    write_frame(sys.stdout.buffer, 1, sender.header)
    final = False
    while not final:
        payload = sys.stdin.buffer.read(size)
        final = not payload
        header, packet = sender.seal(payload, final)
        if header:
            write_frame(sys.stdout.buffer, 1, header)
        write_frame(sys.stdout.buffer, 2, packet)
    print(sender.epoch.confirmation(sender.seq).hex(), file=sys.stderr)


def vectors(path):
    with open(path, encoding="ascii") as file:
        given = json.load(file)
    raw = {name: bytes.fromhex(value) for name, value in given.items() if isinstance(value, str)}
    key = MLKEM1024PrivateKey.from_seed_bytes(raw["receiverSeed"])
    sender = MLDSA87PrivateKey.from_seed_bytes(raw["senderSeed"]).public_key()
    demand(key.decapsulate(raw["ciphertext"]) == raw["sharedSecret"], "shared secret")
    epoch = Epoch.first(raw["sharedSecret"], key.public_key(), sender, raw["ciphertext"], raw["sid"], raw["context"])
    for expected in given["epochs"]:
        demand(epoch.secret.hex() == expected["secret"], "secret of an epoch")
        demand([lane.hex() for lane in epoch.keys] == expected["laneKeys"], "keys of lanes")
        demand(json.loads(expected["header"])["cmt"] == epoch.commitment.hex(), "commitment")
        payload = base64.b64decode(expected["envelope"]["payload"])
        demand(payload.decode() == expected["header"], "payload of an envelope")
        last, epoch = epoch, epoch.next()
    headers = [json.dumps(expected["envelope"]) for expected in given["epochs"]]

    receiver, later = Receiver(headers[0], key, sender, raw["context"]), iter(headers[1:])
    for expected in given["packets"]:
        packet, payload = bytes.fromhex(expected["packet"]), bytes.fromhex(expected["payload"])
        if struct.unpack(">H", packet[:2])[0] > receiver.epoch.number:
            receiver.rotate(next(later))
        demand(receiver.open(packet) == payload, "payload")
        seq = struct.unpack(">Q", packet[4:12])[0]
        demand(receiver.epoch.seal(seq, packet[3] == 1, payload) == packet, "sealed again")
    demand(receiver.finish() == raw["confirmation"], "confirmation")
    demand(last.confirmation(len(given["packets"])) == raw["confirmation"], "confirmation of the last epoch")

    receiver = Receiver(headers[0], key, sender, raw["context"])
    for header in headers[1:]:
        receiver.rotate(header)
    for bad in given["refused"]:
        try:
            receiver.open(bytes.fromhex(bad["packet"]))
        except Refused:
            continue
        raise Refused("opened: " + bad["why"])
    print(f"{len(given['epochs'])} epochs, {len(given['packets'])} packets, {len(given['refused'])} refused")


if __name__ == "__main__":
    try:
        verb, path, *numbers = sys.argv[1:]
        {"vectors": vectors, "receive": receive, "send": send}[verb](path, *map(int, numbers))
    except Refused as why:
        sys.exit(f"refused: {why}")
