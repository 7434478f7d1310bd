-- When somebody deleted the LRP or scaled it down; null: nobody did. What a request that died left is finished by this.
ALTER TABLE actual_lrps ADD COLUMN stop_asked_at timestamptz;
