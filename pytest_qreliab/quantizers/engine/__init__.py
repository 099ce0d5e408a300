"""The parts that every quantizer of ours is built from."""
