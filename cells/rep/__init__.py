"""The cell's face to the BBS: takes work, keeps the books, and says again and again what the cell has."""
