"""One net, one loop, exact snapshots."""
