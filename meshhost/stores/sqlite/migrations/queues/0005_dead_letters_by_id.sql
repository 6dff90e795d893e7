-- For archives, which read a queue by id.
CREATE INDEX dead_letters_by_id ON dead_letters (queue_id);  -- and then by id, as every index
