-- For archives, which read a queue by id.
CREATE INDEX dead_letters_by_id ON meshhost.dead_letters (queue, id);
