"""What a step costs on machines that are not here. config, topology -> memory, time, MFU.

topology.py    a name such as v5e:16x16 -> devices to compile for
compiled.py    the real training step, compiled for them -> HLO text, bytes a device
hlo.py         HLO text -> computations and instructions
cost.py        instructions -> cycles, products, collectives, kernels, each times its loops
network.py     a collective -> seconds on the links that its group spans
kernels.py     a Pallas kernel -> FLOPs and seconds, which the compiler does not estimate
flops.py       config -> FLOPs that a step needs;  mix.py: how full its rows are
planner.py     all of it -> Plan;  generation.py: prefill and decoding
report.py      Plan -> table and JSON;  page.py -> HTML;  search.py -> Pareto table
"""
