"""`python -m monitor` is `wix-calendar-monitor`."""

from monitor.cli import main

main()
