"""The drill: whole systems on real services, faults on purpose, and judges that read only what lies outside."""
