"""Image sets: where the images and labels of a benchmark come from."""
