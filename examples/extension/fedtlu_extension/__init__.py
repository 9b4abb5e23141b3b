"""Parts for fedtlu-fast, each in one file; nothing of fedtlu-fast is edited."""
