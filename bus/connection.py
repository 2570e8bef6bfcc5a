"""How to reach a Kafka cluster, in aiokafka's words."""

import ssl
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)
from aiokafka.helpers import create_ssl_context

from contracts.errors import Misconfigured

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")

BROKEN = (KafkaError, TimeoutError, OSError, RuntimeError)
"""What a client fails with; a RuntimeError is how uvloop tells of a connection that was lost."""

FORBIDDEN = (ClusterAuthorizationFailedError, GroupAuthorizationFailedError, TopicAuthorizationFailedError)
"""What a client fails with that is not let."""


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """A cluster's address and credentials; certificates and keys are paths of PEM files."""

    bootstrap_servers: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments for any aiokafka client. Raises Misconfigured: no such protocol, a bad certificate."""
        if self.security_protocol not in _PROTOCOLS:
            raise Misconfigured(f"the Kafka security protocol must be one of {', '.join(_PROTOCOLS)}")
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.sasl_mechanism or "PLAIN"
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password
        if self.security_protocol.endswith("SSL"):
            options["ssl_context"] = self._ssl_context()
        return options

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context: ssl.SSLContext = create_ssl_context(
                cafile=self.ssl_cafile, certfile=self.ssl_certfile, keyfile=self.ssl_keyfile
            )
        except OSError as error:  # also ssl.SSLError
            raise Misconfigured(f"the Kafka certificates cannot be used: {error}") from error
        return context
