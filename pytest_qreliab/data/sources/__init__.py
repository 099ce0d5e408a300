"""Where the images and labels of a benchmark come from, one module a source."""
