"""Operations on arrays: convolutions, masks, slices, by platform."""
