"""The parts of `benches/peers`. Python 3.8 or later, standard library alone; numpy and the like only in the programs `*_peer.py`."""
