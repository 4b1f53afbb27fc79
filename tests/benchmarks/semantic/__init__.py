"""The semantic cache on labelled questions: what it saves inside its bound, beside rules that others use.

vectors     of all questions, made once
seeds       every rule on one seed's stream
rows        questions with their classes, and one seed's stream of them
tally       what a rule did on one stream: hits, wrong answers, whether the bound held
near        the nearest earlier questions, found once for all rules
baselines   the best threshold in hindsight, a perfect judge, a rule with a threshold of its own for each entry
entry       that last rule's estimate for one entry
evidence    what its gate decided, and when it went off
stream      costkit itself, through its public decorator
figures     means and ranges over seeds
picture     precision against hit rate, and the hit rate as it grows
"""
