"""What the book shows with: `verify`, `explore` and the figures. No part of the mathematics imports it."""
