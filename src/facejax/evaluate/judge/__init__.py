"""Free-text answers rated from 1 to 10 by a model behind an endpoint: `facejax judge`.

  items       stored predictions, or JSONL -> items with an answer of each system
  requests    items -> what is asked, in a blind order; what is read in a judge's answer
  judging     requests as a job of annotate/campaign.py, which asks, journals and caps
  agreement   ratings of repeats -> Krippendorff's alpha
  results     ratings -> means, paired differences, failures
  tables      results -> Markdown and lines for a terminal

Face-LLaVA's paper names the judge, the scale and three criteria. Its prompt is not published: the
prompts are ours, versioned, in assets/prompts/judge.json.
"""
