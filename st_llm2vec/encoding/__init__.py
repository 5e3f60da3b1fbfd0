"""What happens in a call of ``encode``, in order: inputs, rendering, batches, streams; and the type that it computes in."""
