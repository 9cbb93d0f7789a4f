"""What people type first, and what it gives."""
