"""What a run did and what it cost: ledger, results -> report.json and one line."""

import collections
from typing import Any

from facejax.annotate.ledger import Cap, Ledger
from facejax.annotate.unit import Result


def report(results: list[Result], ledger: Ledger, cap: Cap, **run: Any) -> dict[str, Any]:
  """As JSON values.

  Args:
    results: of this run; settled ones may have been paid for by an earlier one.
    ledger: of all runs on this output.
    cap: of all of them.
    run: what is said about this run alone: seconds, requests, currency, stopped, and so on.
  """
  states = collections.Counter(result.state for result in results)
  reasons = collections.Counter(r.reason for r in results if r.state in ("rejected", "unanswered"))
  asked = {a.key: a for r in results for a in (r.written, r.rated) if a is not None}
  uses = sum(a is not None for r in results for a in (r.written, r.rated))
  unusable = collections.Counter(why for a in asked.values() for why in a.reasons if why)
  unknown, at_most = ledger.possible
  return {
    **run,
    "units": {"all": len(results), **{s: states[s] for s in sorted(states)}},
    "reasons": dict(reasons.most_common()),
    "unusable_answers": dict(unusable.most_common()),
    "shared": uses - len(asked),  # units that another unit's answer serves: same file, same facts
    "requests": {
      "sent": ledger.requests,
      "answered": ledger.answers,
      "faults": dict(ledger.faults.most_common()),
      "under_way_when_killed": ledger.orphans,
    },
    "tokens": {"prompt": ledger.tokens[0], "completion": ledger.tokens[1]},
    "answers_without_usage": ledger.uncounted,
    "cost": {
      "paid": ledger.spent,
      "possibly_paid_requests": unknown,
      "possibly_paid_at_most": at_most,
      "cap": _finite(cap.cost),
      "cap_requests": _finite(cap.requests),
    },
  }


def line(report: dict[str, Any]) -> str:
  """The report for a person."""
  units, requests, cost = report["units"], report["requests"], report["cost"]
  faults = ", ".join(f"{name} {n}" for name, n in requests["faults"].items())
  open_cost = cost["possibly_paid_at_most"]
  parts = [
    ", ".join(f"{n} {state}" for state, n in units.items() if state != "all"),
    f"{requests['sent']} requests ({report['per_second']:.1f}/s)"
    + (f", faults: {faults}" if faults else ""),
    f"{sum(report['tokens'].values()):,} tokens",
    f"{cost['paid']:.2f} {report['currency']}"
    + (f" and at most {open_cost:.2f} more" if cost["possibly_paid_requests"] else ""),
  ]
  return f"{units['all']} units: " + "; ".join(parts)


def _finite(number: float) -> float | None:
  return None if number == float("inf") else number
