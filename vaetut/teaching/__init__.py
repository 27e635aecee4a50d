"""The book's checks and pictures: `verify`, `explore` and `plots`. No part of the mathematics imports them."""
