"""A certificate for 127.0.0.1 that nobody but its owner trusts, made by the openssl program."""

import ssl
import subprocess
from pathlib import Path

_SUBJECT = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def make_certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """What a server needs to serve https, and the file that clients must trust."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", *_NEW_KEY, "-days", "2", *_SUBJECT, "-keyout", str(key)]
    command += ["-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 (our own words)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate
