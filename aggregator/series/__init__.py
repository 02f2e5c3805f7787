"""Future-factory and carbon series: pure functions of released slots."""
