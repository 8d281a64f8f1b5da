"""The session cookie (rfc6265bis §4.1.3, ASVS 3.3): exact lines, made in one place."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionCookie:
    """`__Host-sid`; or, for development on loopback, `sid` without `Secure`."""

    samesite: str = "lax"
    insecure: bool = False

    @property
    def name(self) -> str:
        return "sid" if self.insecure else "__Host-sid"

    def holding(self, token: str, max_age: int | None = None) -> str:
        """A `Set-Cookie` value; without `max_age` (seconds) the browser forgets it when it closes."""
        lifetime = "" if max_age is None else f"; Max-Age={max_age}"
        return f"{self.name}={token}; {self._attributes}{lifetime}"

    @property
    def cleared(self) -> str:
        return self.holding("", max_age=0)

    @property
    def _attributes(self) -> str:
        secure = "" if self.insecure else "; Secure"
        return f"Path=/{secure}; HttpOnly; SameSite={self.samesite.capitalize()}"
