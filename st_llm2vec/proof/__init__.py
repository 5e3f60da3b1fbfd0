"""What is compared with what, on which texts and how exactly, wherever something is proven."""
