"""What a quantized model covers, how large it is, how its weights err."""
