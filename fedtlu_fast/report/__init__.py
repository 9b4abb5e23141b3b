"""Tables, pictures and HTML pages, made from what runs leave in their directories."""
