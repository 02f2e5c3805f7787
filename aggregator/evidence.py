"""Exports evidence of a span of time from the ledger: what is in it anybody can check offline."""

from collections.abc import Mapping
from pathlib import Path

from aggregator.config import Factory
from aggregator.ledger import Ledger
from protocols.frame import SECOND, NowNs
from protocols.topics import Address
from security.answers import Receipt, read_answer, sign_tree_head
from security.cards import BrainCard, card_text
from security.evidence import BundleLeaf, BundleWriter, writing
from security.keys import MessageSigner


def export(
    ledger: Ledger,
    path: Path,
    span: tuple[int, int],
    brain: BrainCard,
    key: MessageSigner,
    factories: Mapping[Address, Factory],
    now_ns: NowNs,
) -> int:
    """Write a bundle of what came in [from, to), seconds since 1970; return how many entries.

    Only the agents in `factories` are in it.

    Raises:
        MillgateError: when the file is there already.
    """
    record = ledger.record
    now_s = now_ns() // SECOND
    # One transaction, so that the tree head and all proofs are of the same log.
    with ledger.transaction(), writing(path, span, now_s) as bundle:
        log = record.log()
        bundle.brain(card_text(brain), sign_tree_head(log, now_s, key))
        addresses = {number: address for address, number in ledger.agents().items()}
        wanted = {n: address for n, address in addresses.items() if address in factories}
        leaves = [leaf for leaf in record.leaves(*span) if leaf.agent in wanted]
        for leaf in leaves:
            proof = record.inclusion(leaf.place, log.size)
            bundle.leaf(
                BundleLeaf(
                    leaf.place,
                    leaf.kind,
                    wanted[leaf.agent],
                    leaf.epoch,
                    leaf.stream,
                    leaf.sequence,
                    leaf.received_s,
                    leaf.digest,
                    tuple(proof),
                ),
                record.signed_leaf(leaf),
            )
        for agent, address in wanted.items():
            bundle.agent(address, card_text(factories[address].card))
            keys_file = factories[address].keys_file
            if keys_file is not None and keys_file.exists():
                bundle.key_list(address, keys_file.read_bytes())
            _beside(ledger, bundle, agent, address, span, key)
    return len(leaves)


def _beside(
    ledger: Ledger,
    bundle: BundleWriter,
    agent: int,
    address: Address,
    span: tuple[int, int],
    key: MessageSigner,
) -> None:
    """Add what belongs to an agent and is not in the log."""
    record = ledger.record
    size = record.size()
    for signed in record.receipts_over(agent, *span):
        receipt = read_answer(signed, address, [key.public])
        if isinstance(receipt, Receipt):
            bundle.receipt(signed, record.consistency(receipt.log.size, size))
    before = record.attestation_of(agent, span[0] - 1)
    if before:
        bundle.attestation(before)
    for first, second in record.equivocations(agent):
        bundle.equivocation(first, second)
    for sheet_hash, _, signed in ledger.sheets(agent):
        bundle.sheet(sheet_hash, signed)
