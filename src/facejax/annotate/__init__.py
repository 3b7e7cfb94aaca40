"""Pictures, clips and labels -> questions and answers, written by a model behind an HTTP endpoint.

The modules, in the order in which an answer passes them:

  prompts       what is sent, with a version that every record keeps
  fairface      a label table -> units of work (FairFaceGPT); faceinstruct likewise
  pictures      a media file -> its hash, and what is sent of it
  endpoint      one request -> an answer, or a fault that says whether it may be sent again
  ledger        what was spent, what may have been, what may still be
  journal       every request and answer on disk before it counts
  filters       an answer -> why it cannot be used
  asking        a call -> an answer that was paid for once
  runner        a unit -> its result
  workers       units -> results, some at a time
  campaign      journal, ledger, asker and workers for a job: a recipe, or evaluate/judge
  output        results -> dataset.json, records.jsonl, rejected.jsonl, report.json
"""
