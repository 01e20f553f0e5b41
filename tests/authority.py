"""Certificates for tests of TLS, made by openssl."""

import ssl
import subprocess
from pathlib import Path


class Authority:
    """A certificate authority of one's own, and a server certificate for an address."""

    def __init__(self, directory: Path, address: str) -> None:
        self.certificate = directory / "ca.pem"
        self.server = directory / "server.pem"
        self.key = directory / "key.pem"
        names = directory / "names"
        names.write_text(f"subjectAltName=IP:{address}\n")
        request, ca_key = directory / "request.pem", directory / "ca_key.pem"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        authority: list[str | Path] = [
            "-subj",
            "/CN=authority",
            "-keyout",
            ca_key,
            "-out",
            self.certificate,
            "-days",
            "2",
        ]
        self._openssl("req", "-x509", *curve, *authority, "-addext", "keyUsage=critical,keyCertSign")
        self._openssl("req", *curve, "-subj", "/CN=fake", "-keyout", self.key, "-out", request)
        signed: list[str | Path] = [
            "-CA",
            self.certificate,
            "-CAkey",
            ca_key,
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            names,
        ]
        self._openssl("x509", "-req", "-in", request, "-out", self.server, *signed)

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server, self.key)
        return context

    def _openssl(self, *arguments: str | Path) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
