"""The page at `/`: where to look."""

from typing import Final

LANDING: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>wix-calendar-monitor</title>
</head>
<body>
<h1>wix-calendar-monitor</h1>
<ul>
<li><a href="/metrics">/metrics</a>: every connection, every site and the monitor itself</li>
<li><a href="/-/healthy">/-/healthy</a>: whether the process lives</li>
<li><a href="/-/ready">/-/ready</a>: whether it does its work</li>
</ul>
</body>
</html>
"""
