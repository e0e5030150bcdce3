-- Which of a conflict's two versions was there first.

-- 1: the winner. NULL: there is no loser, or the entry is from before this was recorded; only then `checksum` does not
-- cover it.
ALTER TABLE conflict ADD COLUMN incumbent_won INTEGER;
