"""What unmodified readers from PyPI make of a receipt: each line of the answer is a fact that one of them found.

securesystemslib takes the envelope apart and says which bytes are signed, mldsa (ML-DSA in Python alone) verifies them, and
in-toto-attestation reads statement and predicate by the schemas of in-toto and SLSA, which refuse every unknown field.
"""

import base64
import json
import sys

from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from mldsa import ParameterSet, VerificationKey
from securesystemslib.dsse import Envelope


def raw_key(pem):
    """The key at the end of a SubjectPublicKeyInfo."""
    der = base64.b64decode("".join(pem.split("-----")[2].split()))
    return VerificationKey(der[-2592:], parameters=ParameterSet.ML_DSA_87)


def key_of(trust, key_id):
    for envelope in map(Envelope.from_dict, trust["statements"]):
        (signature,) = envelope.signatures.values()
        root = raw_key(trust["root"]["publicKey"])
        root.verify(bytes.fromhex(signature.signature), envelope.pae())
        about = json.loads(envelope.payload)
        if about["keyId"] == key_id:
            return raw_key(about["publicKey"])
    raise KeyError(key_id)


envelope = Envelope.from_dict(json.load(open(sys.argv[1])))
(signature,) = envelope.signatures.values()
key = key_of(json.load(open(sys.argv[2])), signature.keyid)
key.verify(bytes.fromhex(signature.signature), envelope.pae())
print("mldsa: valid under", signature.keyid)

statement = Statement.copy_from_pb(json_format.Parse(envelope.payload, statement_pb2.Statement()))
statement.validate()
print("predicateType:", statement.pb.predicate_type)
for subject in statement.pb.subject:
    print("subject:", subject.name, subject.digest["sha256"])

predicate = json_format.ParseDict(json_format.MessageToDict(statement.pb.predicate), provenance_pb2.Provenance())
definition, details = predicate.build_definition, predicate.run_details
for descriptor in [*definition.resolved_dependencies, *details.byproducts]:
    ResourceDescriptor.copy_from_pb(descriptor).validate()
print("buildType:", definition.build_type)
print("builder:", details.builder.id, dict(details.builder.version))
print("invocation:", details.metadata.invocation_id, details.metadata.started_on.ToJsonString())
print("dependencies:", *(descriptor.name for descriptor in definition.resolved_dependencies))
print("byproducts:", *(descriptor.name for descriptor in details.byproducts))
