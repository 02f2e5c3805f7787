"""Who was invited, who applied, who was approved, and which certificates were issued.

The file is shared by the running aggregator, which takes applications, and by the commands of its
administrators. The approval code is in neither: an application carries what was made of it in the factory,
and only who types the same code here can approve.
"""

import hashlib
import hmac
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from protocols.database import open_database
from protocols.errors import MillgateError
from protocols.frame import SECOND, NowNs
from protocols.language import tr
from protocols.topics import ID_BYTES, Address
from security.ca import Authority, Issued
from security.cards import AgentCard
from security.enrolment import Application, BrokerPlace, Grant, Progress, Record, Refusal, Unsound
from security.joining_code import MOST_INVITATIONS, Code, bind, hide, new_code

NAME: Final = "joining.db"
"""The file's name, beside the ledger."""

MOST_TRIES: Final = 5
"""So many wrong secrets lock an invitation, and so many wrong approval codes end an application."""

APPROVAL_S: Final = 86_400
"""How long an application waits for approval."""

_MOST_OPEN: Final = 256
_MOST_RENEWALS: Final = 8
_RENEWAL_SPAN_S: Final = 86_400
_KEEP_S: Final = 30 * 86_400
_MOST_ENDED: Final = 20_000
_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE invitation (number INTEGER PRIMARY KEY, enterprise TEXT NOT NULL, site TEXT NOT NULL,
    factory BLOB NOT NULL, ends_s INTEGER NOT NULL, salt BLOB NOT NULL, hidden BLOB NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, used BLOB);
CREATE TABLE application (agent BLOB PRIMARY KEY, factory BLOB NOT NULL, enterprise TEXT NOT NULL,
    site TEXT NOT NULL, record TEXT NOT NULL, request TEXT NOT NULL, approval BLOB NOT NULL,
    ticket BLOB NOT NULL UNIQUE, at_s INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'waiting', decided_s INTEGER NOT NULL DEFAULT 0,
    certificate TEXT NOT NULL DEFAULT '');
CREATE TABLE certificate (serial TEXT PRIMARY KEY, agent BLOB NOT NULL, issued_s INTEGER NOT NULL,
    ends_s INTEGER NOT NULL, revoked_s INTEGER);
"""

State = Literal["waiting", "granted", "refused"]


class JoiningFault(MillgateError):
    """What an administrator asked for cannot be done, or the file cannot be used."""


class Terms(NamedTuple):
    """What every factory that joins is told.

    Attributes:
        fingerprint: of the authority.
        brain: text of the brain's card.
        broker: where to deliver.
    """

    fingerprint: bytes
    brain: str
    broker: BrokerPlace


@dataclass(frozen=True, slots=True)
class Applicant:
    """An application, and what became of it.

    Attributes:
        enterprise, site: as the invitation names them.
        address: the ids that the agent was given.
        record: what the factory says of itself, as it was signed.
        at_s, decided_s: when it came and was decided, seconds since 1970 UTC; 0 before.
    """

    enterprise: str
    site: str
    address: Address
    record: str
    request: bytes
    approval: bytes
    at_s: int
    tries: int
    state: State
    decided_s: int
    certificate: str

    @property
    def name(self) -> str:
        """Enterprise and site."""
        return f"{self.enterprise}/{self.site}"

    def card(self) -> AgentCard:
        """Return the agent's card."""
        return Record.model_validate_json(self.record).card(self.address)


class Certificate(NamedTuple):
    """A certificate that was issued to an agent; times in seconds since 1970 UTC."""

    serial: int
    agent: bytes
    issued_s: int
    ends_s: int
    revoked_s: int | None


class _Invitation(NamedTuple):
    enterprise: str
    site: str
    factory: bytes
    ends_s: int
    salt: bytes
    hidden: bytes
    tries: int
    used: bytes | None


class Joining:
    """One connection to the file; one thread at a time may use it.

    Raises:
        JoiningFault: when it cannot be opened.
    """

    def __init__(self, path: Path, now_ns: NowNs = time.time_ns) -> None:
        self._now_ns = now_ns
        try:
            self._db = open_database(path, _SCHEMA, _VERSION)
            path.chmod(0o600)
        except (sqlite3.Error, OSError) as error:
            raise JoiningFault(
                tr("the file of who joins cannot be opened", "无法打开接入登记文件"),
                where=str(path),
                remedy=tr(
                    f"check disk and permissions ({type(error).__name__})",
                    f"请检查磁盘与权限（{type(error).__name__}）",
                ),
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _now(self) -> int:
        return self._now_ns() // SECOND

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # When the disk is full, SQLite may have rolled back by itself.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def is_invited(self, enterprise: str, site: str) -> bool:
        """Tell whether an invitation for a place is open; inviting again ends it."""
        row = self._db.execute(
            "SELECT 1 FROM invitation WHERE enterprise=? AND site=? AND used IS NULL AND ends_s>?",
            (enterprise, site, self._now()),
        ).fetchone()
        return row is not None

    def invite(
        self,
        enterprise: str,
        site: str,
        factory: bytes,
        minutes: int,
        fingerprint: bytes,
        host: str,
    ) -> Code:
        """Open an invitation that is good once, for some minutes.

        Args:
            enterprise, site: what the brain will call the agent's place.
            factory: the firm's id; that of its other agents.
            fingerprint: of the authority.
            host: where the factory finds the endpoint.

        Raises:
            JoiningFault: when too many invitations are open.
        """
        now = self._now()
        with self._transaction():
            self._db.execute("DELETE FROM invitation WHERE ends_s<?", (now - _KEEP_S,))
            self._db.execute(
                "DELETE FROM application WHERE state='refused' AND at_s<?", (now - _KEEP_S,)
            )
            # By number too: a clock that is ahead for a moment must not make a revoked certificate, or
            # one that can be renewed, unknown.
            self._db.execute(
                "DELETE FROM certificate WHERE ends_s<? AND rowid<=(SELECT MAX(rowid) FROM certificate)-?",
                (now - _KEEP_S, _MOST_ENDED),
            )
            # A second invitation for the same place replaces the first.
            self._db.execute(
                "UPDATE invitation SET ends_s=MIN(ends_s,?) WHERE enterprise=? AND site=?",
                (now, enterprise, site),
            )
            code = new_code(self._free_number(now), fingerprint, host)
            salt = secrets.token_bytes(ID_BYTES)
            self._db.execute(
                "INSERT INTO invitation (number, enterprise, site, factory, ends_s, salt, hidden)"
                " VALUES (?,?,?,?,?,?,?)",
                (
                    code.invitation,
                    enterprise,
                    site,
                    factory,
                    now + 60 * minutes,
                    salt,
                    hide(code.secret.reveal(), salt),
                ),
            )
        return code

    def _free_number(self, now: int) -> int:
        open_now = "SELECT COUNT(*) FROM invitation WHERE used IS NULL AND ends_s>?"
        if self._db.execute(open_now, (now,)).fetchone()[0] >= _MOST_OPEN:
            raise JoiningFault(
                tr(f"{_MOST_OPEN} invitations are open", f"已有 {_MOST_OPEN} 个邀请尚未使用"),
                remedy=tr("wait until some have ended", "请等待部分邀请到期"),
            )
        taken = {row[0] for row in self._db.execute("SELECT number FROM invitation")}
        number = secrets.randbelow(MOST_INVITATIONS)
        while number in taken:
            number = (number + 1) % MOST_INVITATIONS
        return number

    def apply(self, given: Application, terms: Terms) -> Progress:
        """Take an application, at most once for an invitation; the same one again changes nothing."""
        with self._transaction():
            row = self._db.execute(
                "SELECT enterprise, site, factory, ends_s, salt, hidden, tries, used FROM invitation"
                " WHERE number=?",
                (given.invitation,),
            ).fetchone()
            invitation = None if row is None else _Invitation(*row)
            why = _objection(invitation, given, self._now())
            if why == "unknown":
                self._count_try(given.invitation)
            if invitation is None or why is not None:
                return _refused(why or "unknown")
            if invitation.used is not None:
                return self._progress_of_record(given.record, terms)
            return self._take(invitation, given, terms)

    def _take(self, invitation: "_Invitation", given: Application, terms: Terms) -> Progress:
        try:
            record = given.checked(terms.fingerprint)
        except Unsound:
            self._count_try(given.invitation)
            return _refused("unsound")
        self._db.execute(
            "UPDATE invitation SET used=? WHERE number=?", (_digest(given), given.invitation)
        )
        self._db.execute(
            "INSERT INTO application (agent, factory, enterprise, site, record, request, approval,"
            " ticket, at_s) VALUES (?,?,?,?,?,?,?,?,?)",
            (
                secrets.token_bytes(ID_BYTES),
                invitation.factory,
                invitation.enterprise,
                invitation.site,
                given.record,
                given.request,
                given.approval,
                record.ticket,
                self._now(),
            ),
        )
        return Progress(state="waiting")

    def _count_try(self, invitation: int) -> None:
        self._db.execute("UPDATE invitation SET tries=tries+1 WHERE number=?", (invitation,))

    def _progress_of_record(self, record: str, terms: Terms) -> Progress:
        found = self._select("record=?", record)
        return self._progress(found[0], terms) if found else _refused("refused")

    def progress(self, ticket: bytes, terms: Terms) -> Progress:
        """Return how the application goes whose agent shows this ticket."""
        found = self._select("ticket=?", hashlib.sha256(ticket).digest())
        return self._progress(found[0], terms) if found else _refused("unknown")

    def _progress(self, found: Applicant, terms: Terms) -> Progress:
        if found.state == "refused":
            return _refused("refused")
        if found.state == "granted":
            grant = Grant(
                factory=found.address.factory,
                agent=found.address.agent,
                certificate=found.certificate,
                brain=terms.brain,
                broker=terms.broker,
            )
            return Progress(state="granted", grant=grant)
        if self._is_late(found):
            return _refused("late")
        return Progress(state="waiting")

    def _is_late(self, found: Applicant) -> bool:
        return self._now() >= found.at_s + APPROVAL_S

    def applicants(self) -> list[Applicant]:
        """Return all applications that are kept, oldest first."""
        return self._select("1")

    def waiting(self) -> list[Applicant]:
        """Return the applications that can still be approved, oldest first."""
        return [one for one in self._select("state='waiting'") if not self._is_late(one)]

    def _select(self, condition: str, *values: Any) -> list[Applicant]:
        rows = self._db.execute(
            "SELECT enterprise, site, factory, agent, record, request, approval, at_s, tries, state,"  # noqa: S608 - conditions are written in this file
            f" decided_s, certificate FROM application WHERE {condition} ORDER BY at_s, agent",
            values,
        )
        return [
            Applicant(name, site, Address(factory, agent), record, request.encode(), *rest)
            for name, site, factory, agent, record, request, *rest in rows
        ]

    def check_approval(self, found: Applicant, digits: str) -> None:
        """Check that the factory typed the approval code that is typed here.

        Raises:
            JoiningFault: when it did not; after a few tries the application is refused.
        """
        if hmac.compare_digest(bind(digits, found.record.encode()), found.approval):
            return
        with self._transaction():
            self._db.execute(
                "UPDATE application SET tries=tries+1 WHERE agent=?", (found.address.agent,)
            )
        if found.tries + 1 >= MOST_TRIES:
            self.refuse(found)
            raise JoiningFault(
                tr(
                    "wrong approval code too often; the application is refused",
                    "核准码错误次数过多；申请已拒绝",
                ),
                where=found.name,
                remedy=tr("invite again, by phone", "请通过电话重新邀请"),
            )
        raise JoiningFault(
            tr(
                "in the factory another approval code was typed: misheard, or somebody else used "
                "the invitation",
                "工厂输入的核准码与此不同：可能听错，也可能邀请码被他人使用",
            ),
            where=found.name,
            remedy=tr(
                f"ask the data officer by phone; {MOST_TRIES - found.tries - 1} tries are left",
                f"请电话询问数据官；还可尝试 {MOST_TRIES - found.tries - 1} 次",
            ),
        )

    def refuse(self, found: Applicant) -> None:
        """Refuse an application for good.

        Raises:
            JoiningFault: when somebody has decided on it meanwhile.
        """
        self._decide(found, "refused", "")

    def approve(
        self, found: Applicant, issued: Issued, keep_card: Callable[[AgentCard], None]
    ) -> None:
        """Grant what an application asks for.

        Args:
            keep_card: writes the agent's card to where the inbox looks; done before the grant counts.

        Raises:
            JoiningFault: when somebody has decided on it meanwhile.
        """
        with self._transaction():
            self._mark(found, "granted", issued.certificate.decode())
            keep_card(found.card())
            self._add_certificate(found.address.agent, issued)

    def _decide(self, found: Applicant, state: State, certificate: str) -> None:
        with self._transaction():
            self._mark(found, state, certificate)

    def _mark(self, found: Applicant, state: State, certificate: str) -> None:
        done = self._db.execute(
            "UPDATE application SET state=?, decided_s=?, certificate=?"
            " WHERE agent=? AND state='waiting'",
            (state, self._now(), certificate, found.address.agent),
        )
        if not done.rowcount:
            raise JoiningFault(
                tr("somebody has decided on this application meanwhile", "此申请刚刚已由他人处理"),
                where=found.name,
                remedy=tr(
                    "see 'millgate aggregator factories'", "请查看 'millgate aggregator factories'"
                ),
            )

    def add_certificate(self, agent: bytes, issued: Issued) -> None:
        """Note a certificate that was issued to an agent."""
        with self._transaction():
            self._add_certificate(agent, issued)

    def _add_certificate(self, agent: bytes, issued: Issued) -> None:
        self._db.execute(
            "INSERT INTO certificate (serial, agent, issued_s, ends_s) VALUES (?,?,?,?)",
            (f"{issued.serial:x}", agent, self._now(), issued.ends_s),
        )

    def renew(self, serial: int, request: bytes, authority: Authority, days: int) -> Issued:
        """Issue another certificate to whom a good one was issued.

        Args:
            serial: of the certificate that was shown.
            request: for the new one, PEM.

        Raises:
            JoiningFault: when the one that was shown does not count, or too many were issued.
            RequestRefused: when the request is not sound.
        """
        # One transaction: who is revoked meanwhile must not be left with a certificate that counts.
        with self._transaction():
            agent = self._agent_of(serial)
            issued = authority.issue_client(request, agent.hex(), days)
            self._add_certificate(agent, issued)
        return issued

    def _agent_of(self, serial: int) -> bytes:
        """Return whose certificate this is that may be renewed now.

        Raises:
            JoiningFault: when it does not count, or too many were issued.
        """
        row = self._db.execute(
            "SELECT agent FROM certificate WHERE serial=?", (f"{serial:x}",)
        ).fetchone()
        if row is None or not self.is_good(serial):
            raise JoiningFault(
                tr("this certificate does not count here", "此证书在此处无效"),
                remedy=tr("join again with a new code", "请用新邀请码重新接入"),
            )
        agent: bytes = row[0]
        since = self._now() - _RENEWAL_SPAN_S
        recent = [one for one in self.certificates(agent) if one.issued_s > since]
        if len(recent) >= _MOST_RENEWALS:
            raise JoiningFault(
                tr("too many certificates were issued lately", "近期签发的证书过多"),
                remedy=tr("try again tomorrow", "请明日重试"),
            )
        return agent

    def certificates(self, agent: bytes | None = None) -> list[Certificate]:
        """Return the certificates of an agent, or of all, oldest first."""
        rows = self._db.execute(
            "SELECT serial, agent, issued_s, ends_s, revoked_s FROM certificate"
            " WHERE agent=COALESCE(?,agent) ORDER BY issued_s, serial",
            (agent,),
        )
        return [Certificate(int(serial, 16), *rest) for serial, *rest in rows]

    def revoke_certificates(self, agent: bytes) -> list[int]:
        """Note that an agent's certificates no longer count; return the numbers of those that did."""
        with self._transaction():
            good = [one.serial for one in self.certificates(agent) if one.revoked_s is None]
            self._db.execute(
                "UPDATE certificate SET revoked_s=? WHERE agent=? AND revoked_s IS NULL",
                (self._now(), agent),
            )
        return good

    def revoked_agents(self) -> list[bytes]:
        """Return the ids of agents whose certificates were all revoked, sorted."""
        rows = self._db.execute(
            "SELECT agent FROM certificate GROUP BY agent HAVING COUNT(*)=COUNT(revoked_s)"
            " ORDER BY agent"
        )
        return [row[0] for row in rows]

    def is_good(self, serial: int) -> bool:
        """Tell whether a certificate was issued here, has not ended, and was not revoked."""
        row = self._db.execute(
            "SELECT 1 FROM certificate WHERE serial=? AND revoked_s IS NULL AND ends_s>?",
            (f"{serial:x}", self._now()),
        ).fetchone()
        return row is not None

    def revocation_list(self, authority: Authority) -> bytes:
        """Return the signed list, PEM, of all that was revoked and has not ended."""
        now = self._now()
        revoked = {
            one.serial: one.revoked_s
            for one in self.certificates()
            if one.revoked_s is not None and one.ends_s > now
        }
        return authority.revocation_list(revoked, number=self._now_ns())


def _refused(why: Refusal) -> Progress:
    return Progress(state="refused", refusal=why)


def _digest(given: Application) -> bytes:
    return hashlib.sha256(given.record.encode()).digest()


def _objection(found: _Invitation | None, given: Application, now: int) -> Refusal | None:
    """Return why an application cannot be taken; who has no right secret learns nothing else."""
    if found is None or not hmac.compare_digest(hide(given.secret, found.salt), found.hidden):
        return "unknown"
    if found.used is not None:
        return None if hmac.compare_digest(found.used, _digest(given)) else "used"
    if found.tries >= MOST_TRIES:
        return "locked"
    return "expired" if now >= found.ends_s else None
